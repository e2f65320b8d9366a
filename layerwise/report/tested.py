"""What an evaluation found: as values for a program, as tables for a terminal, and image by image."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerwise.console import one_line
from layerwise.data.images import Images
from layerwise.run.files import commit
from layerwise.training.evaluation import Evaluation

LONGEST = 24
"""letters of a class's name that are shown"""
MANY = 20
"""classes that are shown one by one; of more, the lowest few"""
FEW = 10
"""lines of a table that would be longer"""
PREDICTIONS = ("file", "class", "predicted", "probability", "next best", "its probability")
Table = list[tuple[str, ...]]
"""rows, header first"""


def values(
    tested: Evaluation, classes: Sequence[str], k: int | None, validation: Sequence[float] | None = None
) -> dict[str, Any]:
    """All that an evaluation says, accuracies in [0, 1]: of each depth, and beside that of the whole stack.

    `validation` has an accuracy of other images for each depth. `confusion` counts the images of each class, in rows,
    by predicted class. A class without an image has accuracy None.
    """
    shares = {"val_accuracy": validation, "accuracy": tested.accuracies, "standard_error": tested.standard_errors}
    shares |= {f"top_{k}": tested.top(k) if k else None, "calibration_error": _calibration_errors(tested)}
    known = {name: column for name, column in shares.items() if column}
    counts = tested.confusion()
    rows = zip(classes, counts.sum(1).tolist(), tested.by_class(), strict=True)
    return {
        "images": len(tested),
        "classes": list(classes),
        "depths": [
            {"depth": i} | dict(zip(known, row, strict=True))
            for i, row in enumerate(zip(*known.values(), strict=True), 1)
        ],
        "by_class": [{"class": name, "images": images, "accuracy": accuracy} for name, images, accuracy in rows],
        "confusion": counts.tolist(),
    }


def by_depth(
    tested: Evaluation, k: int | None, validation: Sequence[float] | None, mirrored: Evaluation | None
) -> Table:
    """The table by depth; `mirrored` is of the same images, with the mirror image of each."""
    shares = {"validation": validation, "accuracy": tested.accuracies, "± error": tested.standard_errors}
    shares |= {f"top {k}": tested.top(k) if k else None, "calibration error": _calibration_errors(tested)}
    shares |= {"mirrored": mirrored.accuracies if mirrored else None}
    known = {name: column for name, column in shares.items() if column}
    rows = enumerate(zip(*known.values(), strict=True), 1)
    return [("depth", *known), *((str(i), *(f"{share:.2%}" for share in row)) for i, row in rows)]


def by_class(tested: Evaluation, classes: Sequence[str]) -> tuple[str, Table]:
    """Accuracy of each class that has images, of many classes the few with the lowest; a title, and the table."""
    rows = zip(classes, tested.confusion().sum(1).tolist(), tested.by_class(), strict=True)
    known = [(name, images, share) for name, images, share in rows if share is not None]
    title = f"accuracy by class, at depth {len(tested.accuracies)}"
    if len(known) > MANY:
        title = f"{title}: the {FEW} lowest of {len(known)} classes"
        known = sorted(known, key=lambda row: row[2])[:FEW]
    body = [(one_line(name, LONGEST), str(images), f"{share:.2%}") for name, images, share in known]
    return title, [("class", "images", "accuracy"), *body]


def confusions(tested: Evaluation, classes: Sequence[str]) -> tuple[str, Table]:
    """The most frequent mistakes; a title, and the table."""
    found, totals = tested.confusions(), tested.confusion().sum(1).tolist()
    title = f"most frequent confusions, at depth {len(tested.accuracies)}"
    if len(found) > FEW:
        title = f"{title}: {FEW} of {len(found)}"
    names = [one_line(name, LONGEST) for name in classes]
    body = [(names[i], names[j], str(count), f"{count / totals[i]:.2%}") for i, j, count in found[:FEW]]
    return title, [("class", "taken for", "images", "of its class"), *body]


def write_predictions(path: Path, tested: Evaluation, images: Images, classes: Sequence[str]) -> None:
    """Write comma-separated values, an image a line: its name, or else its position from 0, and what the stack says."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(PREDICTIONS)
            rows = zip(tested.labels.tolist(), tested.ranked[-1].tolist(), tested.shares[-1].tolist(), strict=True)
            for i, (label, ranked, shares) in enumerate(rows):
                best, second = ((classes[ranked[place]], f"{shares[place]:.4f}") for place in range(2))
                writer.writerow((images.names[i] if images.names else i, classes[label], *best, *second))

    commit(path, write)


def _calibration_errors(tested: Evaluation) -> list[float]:
    return [tested.calibration_error(depth) for depth in range(1, len(tested.accuracies) + 1)]
