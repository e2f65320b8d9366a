"""Features of pictures, with their files and classes, as a file that other programs read.

Shapes: n pictures, F features.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layerwise.errors import SettingError
from layerwise.run.files import commit

ROWS = 1024
"""pictures that are written at once"""
Array = npt.NDArray[np.float32]


def write_npz(path: Path, features: Array, files: Sequence[str], classes: Sequence[str]) -> None:
    """Write arrays `features` (n, F), `files` (n,) and `classes` (n,), of text, for `numpy.load`."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, features=features, files=np.array(files, np.str_), classes=np.array(classes, np.str_))

    commit(path, write)


def write_parquet(path: Path, features: Array, files: Sequence[str], classes: Sequence[str]) -> None:
    """Write columns of the same names, of which `features` has lists of F; SettingError where pyarrow is missing."""
    pa, parquet = pyarrow(), import_module("pyarrow.parquet")
    kind = pa.list_(pa.float32(), features.shape[1])
    schema = pa.schema([("files", pa.string()), ("classes", pa.string()), ("features", kind)])

    def write(temporary: Path) -> None:
        with parquet.ParquetWriter(temporary, schema) as writer:
            for start in range(0, len(features), ROWS):
                part = slice(start, start + ROWS)
                texts = (pa.array([_utf8(name) for name in column[part]], pa.string()) for column in (files, classes))
                lists = pa.FixedSizeListArray.from_arrays(pa.array(features[part].reshape(-1)), type=kind)
                writer.write_table(pa.Table.from_arrays([*texts, lists], schema=schema))

    commit(path, write)


def pyarrow() -> Any:
    """The package; SettingError where it is missing."""
    try:
        return import_module("pyarrow")
    except ImportError as error:
        raise SettingError(f"OUT: .parquet needs a package that is missing ({error}); pip install pyarrow") from error


def _utf8(name: str) -> str:
    """A name in which what is not UTF-8 is replaced, as it can't be stored."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


FORMATS = {".npz": write_npz, ".parquet": write_parquet}
"""by the ending of the file's name"""
