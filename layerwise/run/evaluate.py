"""Test accuracy of a trained stack at every depth."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from layerwise.config.run import DataConfig, SettingError, TeacherConfig
from layerwise.data.splits import DATASETS, DataSet, load_data
from layerwise.nn.layer import FrozenStack
from layerwise.report.page import print_table
from layerwise.run.directory import DamagedRun, RunDir
from layerwise.run.records import LayerRecord, load_stack
from layerwise.training.inputs import accuracies


@dataclass(frozen=True)
class Run:
    """A run directory read back: what was trained, and on what."""

    path: Path
    stack: FrozenStack
    records: list[LayerRecord]
    data: DataSet


def load_run(run: str, data_root: str | None) -> Run:
    """Read the finished layers of a run, and the data that they were trained on.

    Args:
        run: a run directory.
        data_root: folder of the data, where it is not the one that the run was trained with.

    Raises:
        SettingError: the run or its data is not to be found, or the data has changed.
    """
    path = Path(run)
    if not (path / "config.yaml").is_file():
        raise SettingError(f"RUN: {path} is not a run directory; give one, such as runs/digits-seed0")
    try:
        stack, records = load_stack(RunDir(path))
    except FileNotFoundError as error:
        raise SettingError(f"RUN: {error}") from error
    try:
        settings = yaml.safe_load((path / "config.yaml").read_text())
        values = settings["data"] | {"teacher": TeacherConfig(**settings["data"].get("teacher", {}))}
        config, seed = DataConfig(**values), int(settings["seed"])
        config = dataclasses.replace(config, root=data_root or str(config.root), download=False)
        DATASETS[config.name]
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise DamagedRun(f"{path / 'config.yaml'} is damaged; the command that made the run writes it anew") from error
    data = load_data(config, seed)
    trained_on = records[0].settings["data"]["content"]
    if data.digest()[:16] != trained_on:
        raise SettingError(
            f"data.root: {config.root} does not hold the data that {path} was trained on; give --data-root"
        )
    return Run(path, stack, records, data)


def evaluate(path: str, data_root: str | None = None, mirrored: bool = False) -> list[float]:
    """Print the accuracy on the test images, and on the validation images as recorded, at each depth.

    Args:
        path: a run directory.
        data_root: folder of the data, where it is not the one that the run was trained with.
        mirrored: print, too, the accuracy of logits summed over an image and its mirror image.

    Returns:
        Test accuracies in [0, 1], at depth 1, 2, ….

    Raises:
        SettingError: the run or its data is not to be found, or the data has changed.
    """
    run = load_run(path, data_root)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tested = accuracies(run.stack.to(device), run.data.test, device, "testing")
    columns = {"test": tested}
    if mirrored:
        what = "testing, mirrored"
        columns["test, with mirror image"] = accuracies(run.stack, run.data.test, device, what, mirrored=True)
    table = [("depth", "validation", *columns)]
    for i, record in enumerate(run.records):
        cells = (f"{column[i]:.2%}" for column in columns.values())
        table.append((str(record.layer), f"{record.val_accuracy:.2%}", *cells))
    print_table(table)
    return tested
