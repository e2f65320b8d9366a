"""layerwise theorem: test error against samples and atoms, where the theorem's assumption holds.

The theorem (paper, section 5): if patches have a covering number N0 and a shallow CNN labels the images, a dictionary
of N0 atoms reaches an error eps with poly(1/eps, N0) samples. Images are drawn by `data.name: teacher`.
"""

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from layerwise.console import print_table
from layerwise.experiments.paper.job import Job
from layerwise.experiments.paper.reproduce import check_sweep
from layerwise.parsing import parse
from layerwise.report.figures import Pixels, as_array, panels
from layerwise.report.page import save_figure
from layerwise.run.files import write_json

CLUSTERS = 64
SAMPLES = [300, 1000, 3000, 10_000, 20_000]
STEPS = 2000
BATCH = 64
PANELS = {"clustered": f"--data.teacher.clusters={CLUSTERS}", "unclustered": "--data.teacher.clusters=0"}


@dataclass(frozen=True)
class Learner:
    """What is trained on the images."""

    name: str
    settings: list[str]


def learners(clusters: int) -> list[Learner]:
    """Φ_full with fewer, as many and more atoms than clusters, and the vanilla CNN."""
    sizes = [(f"N = {label}", clusters * times // 4, max(1, times // 4)) for label, times in SIZES.items()]
    return [
        *(Learner(name, [f"--layer.atoms={n}", f"--layer.neighbors={k}"]) for name, n, k in sizes),
        Learner("vanilla CNN", [f"--layer.atoms={clusters}", "--layer.gate.kind=relu"]),
    ]


SIZES = {"N0/4": 1, "N0": 4, "4 N0": 16}
"""in quarters of N0; of several atoms a cluster, as many are near"""


@dataclass(frozen=True)
class Errors:
    """Test errors of a learner, in [0, 1], against sample sizes."""

    panel: str
    learner: str
    samples: list[int]
    error: list[float]
    deviation: list[float]
    """over seeds; 0 with one"""
    seconds: float


def theorem(seeds: int, quick: bool, path: str | None, arguments: list[str]) -> list[Errors]:
    """Train every learner on every sample size, print the errors, draw them.

    Args:
        seeds: 0 to seeds - 1.
        quick: few samples and steps.
        path: a JSON file for the errors.
        arguments: further settings for every run, as for train.py.

    Raises:
        SettingError: a setting does not fit.
    """
    own = (
        *("depth", "config", "data.name", "data.teacher.clusters", "data.teacher.images", "data.teacher.seed"),
        *("optimizer.epochs", "optimizer.batch_size", "layer.atoms", "layer.neighbors", "layer.gate.kind"),
    )
    check_sweep(seeds, path, arguments, own)
    samples, steps = (SAMPLES[:2], 50) if quick else (SAMPLES, STEPS)
    folder = Path("runs") / ("theorem-quick" if quick else "theorem")
    results = []
    for panel, world in PANELS.items():
        for learner in learners(CLUSTERS):
            runs = [
                [_configured(learner, world, n, seed, steps, folder / panel, arguments) for seed in range(seeds)]
                for n in samples
            ]
            results.append(_errors(panel, learner.name, samples, runs))
        _print([result for result in results if result.panel == panel])
    save_figure(folder / "theorem.png", theorem_figure(results))
    print(f"\nfigure: {folder / 'theorem.png'}")
    if path is not None:
        write_json(Path(path), [asdict(result) for result in results])
    return results


def _configured(
    learner: Learner, world: str, samples: int, seed: int, steps: int, folder: Path, arguments: list[str]
) -> Job:
    label = learner.name.replace(" ", "").replace("/", "-").replace("=", "-").lower()
    config, _ = parse(
        ["--config=teacher", world, *learner.settings]
        + [f"--data.teacher.images={samples}", f"--optimizer.epochs={max(1, round(steps * BATCH / samples))}"]
        + [*arguments, f"--data.teacher.seed={seed}", f"--seed={seed}"]
        + [f"--run_dir={folder / f'{label}-{samples}-seed{seed}'}"]
    )
    return Job(config)


def _errors(panel: str, name: str, samples: list[int], runs: list[list[Job]]) -> Errors:
    """Train what is not trained yet."""
    errors, seconds = [], 0.0
    for n, jobs in zip(samples, runs, strict=True):
        print(f"{panel}, {name}, {n} samples", flush=True)
        for job in jobs:
            if job.tested() is None:
                _train_quietly(job)
        accuracies = [job.tested() for job in jobs]
        errors.append([1 - accuracy[0] for accuracy in accuracies if accuracy is not None])
        seconds += sum(job.seconds(1) for job in jobs)
    spread = [stdev(values) if len(values) > 1 else 0.0 for values in errors]
    return Errors(panel, name, samples, [mean(values) for values in errors], spread, round(seconds, 1))


def _train_quietly(job: Job) -> None:
    """Train, with what is printed in a file beside the run."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with (job.folder.parent / f"{job.folder.name}.log").open("a") as log, contextlib.redirect_stdout(log):
        job.train()


def _print(results: list[Errors]) -> None:
    clusters = f", N0 = {CLUSTERS}" if results[0].panel == "clustered" else ""
    print(f"\n{results[0].panel} patches{clusters}: test error in %")
    table = [("samples", *(str(n) for n in results[0].samples), "seconds")]
    for result in results:
        table.append((result.learner, *(f"{100 * error:.1f}" for error in result.error), f"{result.seconds:.0f}"))
    print_table(table)
    print()


def theorem_figure(results: list[Errors]) -> Pixels:
    """Test error against samples, a panel for clustered and one for unclustered patches."""
    names = list(dict.fromkeys(result.panel for result in results))
    figure, all_axes = panels(9, 4, len(names))
    for panel, axes in zip(names, all_axes, strict=True):
        for result in results:
            if result.panel == panel:
                axes.errorbar(
                    result.samples,
                    [100 * e for e in result.error],
                    [100 * d for d in result.deviation],
                    fmt="o-",
                    ms=3,
                    capsize=2,
                    label=result.learner,
                )
        axes.set(xscale="log", xlabel="training images", title=f"{panel} patches", ylim=(0, 55))
        axes.axhline(5, color="grey", linestyle=":", linewidth=1)
    all_axes[0].set(ylabel="test error, %")
    all_axes[0].legend(frameon=False)
    return as_array(figure)
