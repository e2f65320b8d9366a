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
from layerwise.report.listener import save_figure
from layerwise.run.files import output_file, write_json

CLUSTERS = 64
SAMPLES = [300, 1000, 3000, 10_000, 20_000]
STEPS, BATCH = 2000, 64
PANELS = {"clustered": f"--data.teacher.clusters={CLUSTERS}", "unclustered": "--data.teacher.clusters=0"}
LEARNERS = {
    "N = N0/4": [f"--layer.atoms={CLUSTERS // 4}", "--layer.neighbors=1"],
    "N = N0": [f"--layer.atoms={CLUSTERS}", "--layer.neighbors=1"],
    "N = 4 N0": [f"--layer.atoms={4 * CLUSTERS}", "--layer.neighbors=4"],
    "vanilla CNN": [f"--layer.atoms={CLUSTERS}", "--layer.gate.kind=relu"],
}
"""Φ_full with fewer, as many and more atoms than clusters, and the CNN; of several atoms a cluster, as many are near"""
OWN = (
    *("depth", "config", "data.name", "data.teacher.clusters", "data.teacher.images", "data.teacher.seed"),
    *("optimizer.epochs", "optimizer.batch_size", "layer.atoms", "layer.neighbors", "layer.gate.kind"),
)
"""settings that each run has for itself"""


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
    """Train every learner on every sample size with seeds 0 to `seeds` - 1, print the errors, draw them.

    `quick` takes few samples and steps, `path` is a JSON file for the errors, `arguments` are further settings for
    every run, as for layerwise train. Raises SettingError where a setting does not fit.
    """
    file = output_file("--json", path)
    check_sweep(seeds, arguments, OWN)
    sizes, steps = (SAMPLES[:2], 50) if quick else (SAMPLES, STEPS)
    folder = Path("runs") / ("theorem-quick" if quick else "theorem")
    results = []
    for panel, world in PANELS.items():
        for learner, settings in LEARNERS.items():
            label = learner.replace(" ", "").replace("/", "-").replace("=", "-").lower()
            runs: dict[int, list[Job]] = {n: [] for n in sizes}
            for n, jobs in runs.items():
                given = ["--config=teacher", world, *settings, f"--data.teacher.images={n}"]
                given += [f"--optimizer.epochs={max(1, round(steps * BATCH / n))}", *arguments]
                for seed in range(seeds):
                    place = f"--run_dir={folder / panel / f'{label}-{n}-seed{seed}'}"
                    jobs.append(Job(parse([*given, f"--data.teacher.seed={seed}", f"--seed={seed}", place])[0]))
            results.append(_errors(panel, learner, runs))
        print(f"\n{panel} patches{f', N0 = {CLUSTERS}' if panel == 'clustered' else ''}: test error in %")
        table = [("samples", *(str(n) for n in sizes), "seconds")]
        for row in results[-len(LEARNERS) :]:
            table.append((row.learner, *(f"{100 * error:.1f}" for error in row.error), f"{row.seconds:.0f}"))
        print_table(table)
        print()
    save_figure(folder / "theorem.png", theorem_figure(results))
    print(f"\nfigure: {folder / 'theorem.png'}")
    if file is not None:
        write_json(file, [asdict(result) for result in results])
    return results


def _errors(panel: str, learner: str, runs: dict[int, list[Job]]) -> Errors:
    """Train what is not trained yet of the runs, by sample size; what that prints is kept in a file beside each."""
    errors, seconds = [], 0.0
    for n, jobs in runs.items():
        print(f"{panel}, {learner}, {n} samples", flush=True)
        for job in jobs:
            if job.tested() is None:
                job.folder.parent.mkdir(parents=True, exist_ok=True)
                with job.folder.with_name(f"{job.folder.name}.log").open("a") as log, contextlib.redirect_stdout(log):
                    job.train()
        errors.append([1 - accuracies[0] for job in jobs if (accuracies := job.tested())])
        seconds += sum(job.seconds(1) for job in jobs)
    spread = [stdev(values) if len(values) > 1 else 0.0 for values in errors]
    return Errors(panel, learner, list(runs), [mean(values) for values in errors], spread, round(seconds, 1))


def theorem_figure(results: list[Errors]) -> Pixels:
    """Test error against samples, a panel for clustered and one for unclustered patches."""
    names = list(dict.fromkeys(result.panel for result in results))
    figure, all_axes = panels(9, 4, len(names))
    for panel, axes in zip(names, all_axes, strict=True):
        for result in (result for result in results if result.panel == panel):
            error, deviation = ([100 * value for value in values] for values in (result.error, result.deviation))
            axes.errorbar(result.samples, error, deviation, fmt="o-", ms=3, capsize=2, label=result.learner)
        axes.set(xscale="log", xlabel="training images", title=f"{panel} patches", ylim=(0, 55))
        axes.axhline(5, color="grey", linestyle=":", linewidth=1)
    all_axes[0].set(ylabel="test error, %")
    all_axes[0].legend(frameon=False)
    return as_array(figure)
