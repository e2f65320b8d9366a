"""Figures whatever the user's settings are, whatever classes are called, and whatever fails."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from layerwise.report import charts, pictures
from layerwise.report.charts import accuracy_chart, confusion_chart, curve_chart, usage_chart
from layerwise.report.figures import as_array
from layerwise.report.listener import Figures
from layerwise.report.summary import summarize
from layerwise.run.run import Run
from layerwise.training.evaluation import evaluate

NAMES = ["$a$ \\frac{", "😀", "漢字", "x" * 300, "שלום", "a\nb", "\udcff", "", "a_b^{", "%"]


@pytest.mark.filterwarnings("error")
def test_confusion__takes_any_names() -> None:
    counts = torch.eye(len(NAMES), dtype=torch.long)
    drawn = as_array(confusion_chart(counts, NAMES))
    shortened = [name[:23] + "…" if len(name) > 24 else name for name in NAMES]
    assert np.array_equal(drawn, as_array(confusion_chart(counts, shortened)))
    assert not np.array_equal(drawn, as_array(confusion_chart(counts, ["a", *NAMES[1:]])))
    assert len(np.unique(drawn[:, :, 0])) > 2


def test_figures__do_not_follow_the_users_settings(trained: Path) -> None:
    run = Run(trained)

    def drawn() -> list[np.ndarray]:
        return [
            as_array(confusion_chart(torch.eye(3, dtype=torch.long), ["a", "b", "c"])),
            as_array(accuracy_chart(run.records)),
            as_array(curve_chart([1, 2], [3, 4], [0.1, None], "atoms")),
            as_array(usage_chart(torch.tensor([0.5, 0.1, 0.4]))),
        ]

    before = drawn()
    other: Any = {"text.usetex": True, "lines.linewidth": 9, "font.size": 20, "axes.facecolor": "red", "figure.dpi": 30}
    with matplotlib.rc_context(other):
        assert matplotlib.rcParams["font.size"] == 20
        after = drawn()
        assert matplotlib.rcParams["font.size"] == 20
    for a, b in zip(before, after, strict=True):
        assert np.array_equal(a, b)


def test_a_figure_that_fails__costs_that_figure(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(finished)
    before = {path.name: path.read_bytes() for path in finished.glob("*.png")}
    for path in [*finished.glob("*.png"), finished / "report.html"]:
        path.unlink()

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(pictures, "atoms_picture", broken)
    monkeypatch.setattr(charts, "accuracy_chart", broken)
    records, stack, data = run.records, run.stack(), run.data()
    tested = evaluate(stack, data.test, torch.device("cpu"))
    own = Figures(run, data, torch.device("cpu"))
    own.layer_finished(stack, records)
    own.stack_finished(stack, records, tested, summarize(records, tested, data))
    assert {path.name for path in finished.glob("*.png")} == {
        "layer-2-usage.png",
        "layer-2-answers.png",
        "confusion.png",
    }
    assert (finished / "layer-2-usage.png").read_bytes() == before["layer-2-usage.png"]
    assert capsys.readouterr().out.count("failed, all else goes on: MemoryError('no room')\n") == 2
    assert "The surest hits" in (finished / "report.html").read_text(encoding="utf-8")
