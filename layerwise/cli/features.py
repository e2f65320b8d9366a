"""The features of pictures, by a trained stack, in a file."""

import sys
from pathlib import Path
from typing import Literal

from layerwise.cli import Options, check_read, pictures
from layerwise.errors import SettingError


def main(arguments: list[str]) -> None:
    """Write features, files and classes, the folders that pictures lie in; OSError where a file is no picture."""
    options = Options("features", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("files", metavar="FILE", nargs="+", help="pictures, folders of them, - for names from stdin")
    options.add_argument("out", metavar="OUT", help="the file to write, .npz or .parquet: features, files, classes")
    options.add_argument("--layer", metavar="I", default="all", help="of one layer, from 1; default: all, side by side")
    options.add_argument("--pool", metavar="P", default="4", help="averaged to P×P positions, or none; default: 4")
    given, _ = options.read(arguments)
    out = Path(given.out)
    layer: int | Literal["all"] = int(given.layer) if given.layer.isdecimal() else "all"
    pool = int(given.pool) if given.pool.isdecimal() else None
    if layer == "all" and given.layer != "all":
        raise SettingError(f"layer: {given.layer} is not a layer; give a number from 1, or all")
    if pool == 0 or pool is None and given.pool != "none":
        raise SettingError(f"pool: {given.pool} is no side of a grid; give a number from 1, or none")

    import numpy as np
    import torch

    from layerwise.console import one_line, progress
    from layerwise.data.rows import allocate
    from layerwise.features import FORMATS, pyarrow
    from layerwise.run.files import output_file
    from layerwise.trained import load

    if out.suffix not in FORMATS:
        raise SettingError(f"OUT: {out} ends in none of {', '.join(FORMATS)}; give the name of a file to write, last")
    if out.suffix == ".parquet":
        pyarrow()
    file = output_file("OUT", given.out)
    stack = load(given.run).to("cuda" if torch.cuda.is_available() else "cpu")
    if layer != "all" and not 1 <= layer <= len(stack.records):
        raise SettingError(f"layer: {layer} is none of the run's; give 1 to {len(stack.records)}, or all")
    named = pictures(given.files)
    features = allocate((len(named), stack.transform([], layer, pool).shape[1]), torch.float32)
    kept, lost = list[tuple[str, str]](), list[str]()
    found = stack.transformed((file for file, _ in named), layer, pool)
    for picture, (_, row) in zip(named, progress(found, "computing features", len(named)), strict=True):
        if isinstance(row, str):
            lost.append(row)
        else:
            features[len(kept)] = row
            kept.append(picture)
    files, classes = [file for file, _ in kept], [label for _, label in kept]
    FORMATS[out.suffix](file, np.asarray(features)[: len(kept)], files, classes)
    print(f"{out}: {features.shape[1]} features of each of {len(kept)} images")
    for reason in lost:
        print(one_line(reason), file=sys.stderr)
    check_read(len(lost), len(named))
