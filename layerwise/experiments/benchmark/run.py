"""layerwise benchmark: how fast this machine trains, and against what."""

from dataclasses import asdict
from pathlib import Path

import torch

from layerwise.console import print_table, progress
from layerwise.experiments.benchmark.dictionary import measure_dictionary
from layerwise.experiments.benchmark.layers import HUGE, Row, measure_layer
from layerwise.experiments.benchmark.stack import measure_depth
from layerwise.run.files import check_writable, write_json


def benchmark(quick: bool, path: str | None, device: torch.device) -> list[Row]:
    """Measure and print.

    Args:
        quick: small shapes and few turns: whether everything runs, not how fast.
        path: a JSON file to write the rows of layers to.
        device: what to measure.

    Raises:
        SettingError: the file cannot be written.
    """
    check_writable("--json", path)
    batch = 16 if quick else 512 if device.type == "cuda" else 64
    rows = []
    for atoms, neighbors in [(64, 16)] if quick else [(1024, 256), (256, 64), (16384, 4096)]:
        for _ in progress([0], f"a layer of {atoms} atoms, {neighbors} neighbors"):
            rows += measure_layer(atoms, neighbors, batch, device, 2 if quick else 5 if atoms <= HUGE else 2)
    print_layers(rows)
    if path is not None:
        write_json(Path(path), [asdict(row) for row in rows])
    print()
    for _ in progress([0], "a layer at depth 4"):
        depth = measure_depth(quick, device)
    print(depth)
    for _ in progress([0], "a dictionary"):
        dictionary = measure_dictionary(quick)
    print(dictionary)
    return rows


def print_layers(rows: list[Row]) -> None:
    """Print one line a row."""
    table = [("atoms", "k", "backend", "images/s", "÷ plain", "÷ floor", "evaluation ÷ step", "peak GiB", "agrees")]
    for row in rows:
        table.append(
            (
                str(row.atoms),
                str(row.neighbors),
                row.backend,
                f"{row.images_per_second:.0f}",
                "-" if row.vs_plain is None else f"{row.vs_plain:.2f}",
                f"{row.vs_floor:.2f}",
                f"{row.vs_training:.2f}",
                "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}",
                "yes" if row.agrees else "NO",
            )
        )
    print_table(table)
