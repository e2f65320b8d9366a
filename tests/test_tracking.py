"""W&B: real offline runs, read back with W&B's own reader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import SMALL, Command, environment


def read_back(run: Path) -> list[dict[str, Any]]:
    """Every record of every offline run in a run directory, in order of time."""
    records = []
    for folder in sorted((run / "wandb").glob("offline-run-*")):
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)],
            env=environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        records += [json.loads(line) for line in done.stdout.splitlines()]
    return records


def test_offline_run__has_each_layers_curves_on_its_own_axis__and_one_id_on_resume(
    command: Command, tmp_path: Path
) -> None:
    first = command("--depth=1", *SMALL, "--run_dir=r")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("W&B: tracking offline; to upload: wandb sync ") == 1
    second = command("--depth=2", *SMALL, "--run_dir=r")
    assert second.returncode == 0, second.stderr

    records = read_back(tmp_path / "r")
    assert len({record["run"]["run_id"] for record in records if record["type"] == "run"}) == 1
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    for layer in ("layer1", "layer2"):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            steps = [item[f"{layer}/step"] for item in history if f"{layer}/{name}" in item]
            assert len(steps) >= 2 and steps == sorted(set(steps)), (layer, name, steps)
            assert 0 <= steps[0] <= 5 and steps[-1] <= 10  # two epochs of five steps
    depths = {item["summary/depth"]: item["summary/accuracy"] for item in history if "summary/depth" in item}
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert depths == {layer["layer"]: layer["val_accuracy"] for layer in summary["layers"]}
    pictures = {name for item in history for name in item if name.endswith("._type")}
    assert {"layer1/atoms._type", "layer2/usage._type", "accuracy._type", "confusion._type"} <= pictures


def test_disabled__writes_nothing(command: Command, tmp_path: Path) -> None:
    done = command(*SMALL, "--run_dir=r", "--wandb.mode=disabled")
    assert done.returncode == 0, done.stderr
    assert "W&B: disabled" in done.stdout
    assert not (tmp_path / "r" / "wandb").exists()


def test_without_wandb__one_line_says_so(tmp_path: Path) -> None:
    # a process in which `import wandb` fails, as where it is not installed
    program = (
        "import sys; sys.modules['wandb'] = None\n"
        "from layerwise.cli.command import main\n"
        f"sys.exit(main({[*SMALL, '--run_dir=r']!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the package wandb is not installed") == 1
    assert (tmp_path / "r" / "summary.json").exists()
