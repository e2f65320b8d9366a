"""summary.json, and the table that is printed at the end of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from layerwise.run.record import LayerRecord


def summarize(records: Sequence[LayerRecord], test_accuracy: float) -> dict[str, Any]:
    """The content of summary.json; accuracies in [0, 1]."""
    layers = [
        {
            "layer": record.layer,
            "atoms": record.atoms,
            "output_shape": record.output_shape,
            "val_accuracy": record.val_accuracy,
            "seconds": record.seconds,
        }
        for record in records
    ]
    return {
        "depth": len(records),
        "test_accuracy": test_accuracy,
        "layers": layers,
        "seconds": round(sum(record.seconds for record in records), 3),
    }


def rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The end-of-run table, header first."""
    table: list[tuple[str, ...]] = [("layer", "atoms", "output shape", "validation", "seconds")]
    for layer in summary["layers"]:
        shape = "×".join(map(str, layer["output_shape"]))
        accuracy, seconds = f"{layer['val_accuracy']:.2%}", f"{layer['seconds']:.1f}"
        table.append((str(layer["layer"]), str(layer["atoms"]), shape, accuracy, seconds))
    return table
