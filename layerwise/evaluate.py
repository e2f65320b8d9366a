"""Test accuracy of a trained stack at every depth."""

import dataclasses
from pathlib import Path

import torch
import yaml

from layerwise.config import DataConfig, SettingError
from layerwise.data import DATASETS, load_data
from layerwise.features import accuracies
from layerwise.report import print_table
from layerwise.rundir import DamagedRun, RunDir
from layerwise.saved import load_stack


def evaluate(run: str, data_root: str | None = None) -> list[float]:
    """Print the accuracy on the test images, and on the validation images as recorded, at each depth.

    Args:
        run: a run directory.
        data_root: folder of the data, where it is not the one that the run was trained with.

    Returns:
        Test accuracies in [0, 1], at depth 1, 2, ….

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
        config, seed = DataConfig(**settings["data"]), int(settings["seed"])
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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tested = accuracies(stack.to(device), data.test, device, "testing")
    table = [("depth", "validation", "test")]
    for record, accuracy in zip(records, tested, strict=True):
        table.append((str(record.layer), f"{record.val_accuracy:.2%}", f"{accuracy:.2%}"))
    print_table(table)
    return tested
