"""layerwise check-gpu, without a GPU: kernels in Triton's interpreter, steps on the CPU."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from layerwise.config import Layer, SettingError  # noqa: E402
from layerwise.errors import TrainingFailed  # noqa: E402
from layerwise.experiments.gpu import table  # noqa: E402
from layerwise.experiments.gpu.check import Sizes, check_gpu  # noqa: E402
from layerwise.experiments.paper.tables import TABLES  # noqa: E402
from layerwise.ops import cuda  # noqa: E402
from layerwise.run.files import write_record  # noqa: E402
from tests.conftest import Command  # noqa: E402
from tests.experiments.test_paper import QUICK  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*encountered.*:RuntimeWarning"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are not interpreted where there is a GPU"),
]
CPU = torch.device("cpu")
TINY = Sizes([((2, 2, 5, 5), 3, 13, 4, 2)], [(Layer(patch_size=2, atoms=12, pool=2, channels=4), (2, 5, 5))], 3, 64, 1)
SETTINGS = [setting for setting in QUICK if "epochs" not in setting and "wandb" not in setting]


@pytest.fixture(autouse=True)
def one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder; of Table 1 a row, of which an epoch takes what there is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TABLES, "table1", replace(TABLES["table1"], rows=TABLES["table1"].rows[-1:]))
    monkeypatch.setattr(table, "estimate", lambda jobs: 140.0)
    # the limit is a large GPU's; 200 times the seconds of an epoch here may be more where the machine has other work
    monkeypatch.setattr(table, "SEED", math.inf)


def check(minutes: float = 1 / 60, now: Any = lambda: 0.0, settings: list[str] = SETTINGS) -> None:
    check_gpu(minutes, "found.json", settings, CPU, TINY, now)


def told() -> dict[str, Any]:
    """What the file says of each check."""
    checks: dict[str, Any] = json.loads(Path("found.json").read_text())["checks"]
    return checks


def test_check_gpu__without_one__says_so_in_a_line(command: Command) -> None:
    done = command("check-gpu")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: check-gpu: torch") and "GPU" in done.stderr
    assert command("check-gpu", "--minutes=0").returncode == 2


def test_check_gpu__tries_all_parts__and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    check()
    assert [name.split(",")[0] for name in told()] == [
        "kernels", "gates", "steps", "sums of clusters", "matrix products", "benchmark", *["Table 1"] * 3,
    ]  # fmt: skip
    found = [finding for one in told().values() for finding in one["findings"]]
    holding = [one["what"].partition(",")[0] for one in found if one["holds"]]
    assert holding == ["kernels", "gates", "steps", "sums of clusters", *["benchmark"] * 4, "Table 1"]
    assert not [one for one in found if one["holds"] is False]
    assert told()[table.EPOCHS]["findings"][0]["value"] == 1
    out = capsys.readouterr().out
    assert all(f"\n{one['what']}  " in out for one in found)


def test_check_gpu__goes_on_where_time_was_up(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter(range(1000))
    with pytest.raises(TrainingFailed, match=r"[1-7] of 9 are not done; the same command goes on"):
        check(1 / 6, lambda: next(times))
    first = told()
    assert 2 <= len(first) < 8 and "no time was left" in capsys.readouterr().out
    with pytest.raises(TrainingFailed, match="2 of 9 are not done"):
        check(settings=["--data.name=image_folder", "--data.root=nowhere"])
    second = told()
    assert len(second) == 7 and "nowhere" in capsys.readouterr().out
    check()
    whole = told()
    assert len(whole) == 9 and {name: whole[name] for name in second} == second
    capsys.readouterr()
    check()
    assert told() == whole and " of 9: " not in capsys.readouterr().out


def test_check_gpu__finds_that_table_1_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "SEED", 0)
    with pytest.raises(TrainingFailed, match=r"1 of \d+ do not hold, such as Table 1, seconds of 200 epochs, by those"):
        check()


def test_check_gpu__finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right, near, calls, times = cuda.backward, cuda.near, iter(range(100)), iter(range(1000))
    monkeypatch.setattr(cuda, "backward", lambda *given: right(*given) * (1 + 0.01 * next(calls)))
    monkeypatch.setattr(cuda, "near", lambda *given: torch.zeros_like(near(*given)))
    with pytest.raises(TrainingFailed, match=r"check-gpu: 1 of 1 do not hold, such as kernels, 2×2×5×5, s = 3"):
        check(now=lambda: next(times))  # in whose second there is time for one check
    ((finding,),) = (one["findings"] for one in told().values())
    assert finding["found"] == "gates found apart, gradient, again differ" and not finding["holds"]


def test_check_gpu__refuses_what_it_did_not_write__and_what_is_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="optimizer.epochs: each run here has its own"):
        check(settings=["--optimizer.epochs=3"])
    with pytest.raises(SettingError, match="layer.atom: there is no such setting, did you mean layer.atoms"):
        check(settings=["--layer.atom=3"])
    assert not Path("found.json").exists()
    Path("found.json").write_text('{"a": 1}')
    with pytest.raises(SettingError, match=r"--json: found\.json is not what check-gpu wrote \(.*\); move it away"):
        check()
    write_record(Path("found.json"), {"about": {"device": "NVIDIA A100"}, "checks": {}})
    with pytest.raises(SettingError, match=r"--json: found\.json is of device NVIDIA A100, not cpu, layerwise None"):
        check()
