"""The sweep over the theorem's world: what it trains, and what it makes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerwise.config import Config, SettingError
from layerwise.experiments.paper import theorem as sweep
from layerwise.experiments.paper.job import Job
from layerwise.experiments.paper.theorem import Errors, theorem, theorem_figure

LEARNERS = {"N = N0/4": (16, 1), "N = N0": (64, 1), "N = 4 N0": (256, 4), "vanilla CNN": (64, None)}
"""atoms and neighbors, of 64 clusters"""


@pytest.mark.parametrize("quick, seeds", [(True, 2), (False, 1)])
def test_theorem__trains_every_learner_on_every_sample(
    quick: bool, seeds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    known: list[tuple[str, str, dict[int, list[Job]]]] = []

    def errors(panel: str, learner: str, runs: dict[int, list[Job]]) -> Errors:
        known.append((panel, learner, runs))
        error = [0.1 * len(known) + 0.01 * i for i in range(len(runs))]
        return Errors(panel, learner, list(runs), error, [0.0] * len(runs), 7.4)

    monkeypatch.setattr(sweep, "_errors", errors)
    Path("runs", "theorem-quick" if quick else "theorem").mkdir(parents=True)  # as a training would
    found = theorem(seeds, quick, "out.json", ["--wandb.mode=disabled"])
    assert [(panel, learner) for panel, learner, _ in known] == [
        (panel, learner) for panel in ("clustered", "unclustered") for learner in LEARNERS
    ]
    assert [(own.panel, own.learner) for own in found] == [known[i][:2] for i in range(8)]
    steps, sizes = (50, [300, 1000]) if quick else (2000, [300, 1000, 3000, 10_000, 20_000])
    folders = set()
    for panel, learner, runs in known:
        assert list(runs) == sizes
        for size, jobs in runs.items():
            for seed, job in enumerate(jobs):
                config, layer = job.config, job.config.layer_at(1)
                assert (config.data.name, config.data.teacher.images, config.seed) == ("teacher", size, seed)
                assert config.data.teacher.seed == seed and config.depth == 1
                assert config.data.teacher.clusters == (64 if panel == "clustered" else 0)
                atoms, neighbors = LEARNERS[learner]
                assert layer.atoms == atoms and (layer.k == neighbors if neighbors else layer.gate.kind == "relu")
                assert layer.optimizer.epochs == max(1, round(steps * 64 / size)) and layer.optimizer.batch_size == 64
                assert job.folder.parent == Path("runs", "theorem-quick" if quick else "theorem", panel)
                folders.add(job.folder.name)
            assert len(jobs) == seeds
    assert len(folders) == len(sizes) * seeds * 4
    printed = capsys.readouterr().out
    assert "clustered patches, N0 = 64: test error in %" in printed and "\nunclustered patches: test error" in printed
    assert printed.splitlines()[3].split() == [
        "N",
        "=",
        "N0/4",
        "10.0",
        "11.0",
        *["12.0", "13.0", "14.0"][: len(sizes) - 2],
        "7",
    ]
    assert (
        tmp_path / "out.json"
    ).exists() and f"figure: runs/theorem{'-quick' if quick else ''}/theorem.png" in printed


def test_errors__are_means_and_deviations_over_seeds__of_runs_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: dict[tuple[int, int], list[float]] = {(300, 0): [0.75, 0.5], (1000, 0): [0.875]}
    trained = []

    def train(own: Job) -> None:
        print("a line")
        trained.append((own.config.data.teacher.images, own.config.seed))
        tested[trained[-1]] = [0.25]

    monkeypatch.setattr(Job, "tested", lambda own: tested.get((own.config.data.teacher.images, own.config.seed)))
    monkeypatch.setattr(Job, "train", train)
    monkeypatch.setattr(Job, "seconds", lambda own, depth: 1.26 * depth)

    def jobs(size: int, seeds: int) -> list[Job]:
        world: Any = {"name": "teacher", "teacher": Config().data.teacher}
        made = []
        for seed in range(seeds):
            data = type(Config().data)(**world | {"teacher": type(world["teacher"])(images=size)})
            made.append(Job(Config(seed=seed, data=data, run_dir=str(tmp_path / "deep" / f"{size}-{seed}"))))
        return made

    found = sweep._errors("clustered", "N = N0", {300: jobs(300, 2), 1000: jobs(1000, 1)})
    assert trained == [(300, 1)]
    assert (found.panel, found.learner, found.samples, found.error) == (
        "clustered",
        "N = N0",
        [300, 1000],
        [0.5, 0.125],
    )
    assert found.deviation == pytest.approx([0.5 / 2**0.5, 0])  # of 0.25 and 0.75
    assert found.seconds == 3.8
    assert (tmp_path / "deep" / "300-1.log").read_text() == "a line\n"
    assert not (tmp_path / "deep" / "300-0.log").exists()


def test_theorem__refuses_what_each_run_has_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("depth", "data.name", "data.teacher.clusters", "data.teacher.images", "data.teacher.seed", "seed"):
        with pytest.raises(SettingError, match=f"^{name}: each run here has its own"):
            theorem(1, True, None, [f"--{name}=1"])
    for name in ("optimizer.epochs", "optimizer.batch_size", "layer.atoms", "layer.neighbors", "layer.gate.kind"):
        with pytest.raises(SettingError, match=f"^{name}: each run here has its own"):
            theorem(1, True, None, [f"--{name}=1"])
    assert not any(tmp_path.iterdir())


def test_figure__has_a_panel_for_each_kind_of_patches() -> None:
    results = [
        Errors(panel, learner, [10, 100], [0.5, 0.25], [0.1, 0.0], 1.0)
        for panel in ("clustered", "unclustered")
        for learner in LEARNERS
    ]
    figure = theorem_figure(results)
    one = theorem_figure(results[:4])
    assert figure.dtype == np.uint8 and figure.shape[2] == 3
    assert figure.shape[1] > 1.5 * figure.shape[0] and one.shape != (0, 0, 3)
