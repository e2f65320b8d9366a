"""layerwise paper: the paper's tables and figures, each row trained and set beside the paper's number."""

import hashlib
import os
import re
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from layerwise.config import SettingError
from layerwise.config.identity import OWN
from layerwise.console import in_words
from layerwise.errors import RunInUse
from layerwise.experiments.paper.job import Job, estimate
from layerwise.experiments.paper.peers import PEERS
from layerwise.experiments.paper.tables import TABLES, Row, Table, small
from layerwise.parsing import parse
from layerwise.report.charts import curve_chart
from layerwise.report.figures import as_array
from layerwise.report.listener import save_figure
from layerwise.run.files import output_file, write_json


@dataclass(frozen=True)
class Result:
    """One row as it came out; accuracies in per cent."""

    row: str
    mean: float
    std: float | None
    """over seeds; None with one seed"""
    seeds: int
    paper: float | None
    seconds: float
    """of training, all seeds"""


def reproduce(name: str, scale: str | None, seeds: int, path: str | None, arguments: list[str]) -> list[Result]:
    """Train every row of a table that is not trained yet, with seeds 0 to `seeds` - 1, and print the table.

    It is one of `TABLES`, or peers. The scale is full, or small (which None means): a quarter of the atoms (of figure 9
    a sixteenth), 10 epochs; there is one of peers. `path` is a JSON file for the rows, `arguments` are further settings
    for every row, as for layerwise train, such as --data.root. Raises SettingError where a setting does not fit.
    """
    table = (TABLES | {"peers": PEERS})[name]
    if table.small is None and scale is not None:
        raise SettingError(f"--scale: {name} has one size only; omit it")
    scale = None if table.small is None else scale or "small"
    rows = rows_at(table, scale)
    names = dict.fromkeys(name for row in rows for name in row.settings)
    differing = [name for name in names if len({row.settings.get(name) for row in rows}) > 1]
    file = output_file("--json", path)
    check_sweep(seeds, arguments, ("depth", "config", *differing))
    runs = configured(rows, name if scale is None else f"{name}-{scale}", seeds, arguments, table.recipe)
    by_seed = [job for jobs in zip(*runs.values(), strict=True) for job in jobs]
    open_runs = [job for job in by_seed if job.tested() is None]
    if open_runs:
        print(f"{table.title}: {len(open_runs)} runs to train", flush=True)
        print(f"about {in_words(estimate(open_runs))}, by a rehearsal", flush=True)
        for number, job in enumerate(open_runs, 1):
            print(f"\nrun {number} of {len(open_runs)}: {job.folder}", flush=True)
            try:
                if job.tested() is None:
                    job.train()
            except RunInUse:
                print("another process is at it", flush=True)
        if elsewhere := sum(job.tested() is None for job in open_runs):
            raise SettingError(
                f"{name}: another process still trains {elsewhere} of the runs; repeat this when it is done"
            )
    results = [outcome(row, runs[row.stack or row.name]) for row in rows]
    print("\n" + markdown(table, results))
    if table.axis is not None:
        points = [float(str(row.settings[table.axis[1]])) for row in rows]
        figure = curve_chart(points, [result.mean for result in results], [r.std for r in results], table.axis[0])
        place = runs[rows[0].name][0].folder.parent / f"{name}.png"
        save_figure(place, as_array(figure))
        print(f"\nfigure: {place}")
    if file is not None:
        write_json(file, [asdict(result) for result in results])
    return results


def check_sweep(seeds: int, arguments: list[str], own: tuple[str, ...]) -> None:
    """Refuse what cannot be given to a command of many runs, to each of which it gives seed, run_dir and `own` itself.

    Raises SettingError, naming what was given.
    """
    if seeds < 1:
        raise SettingError(f"--seeds: {seeds} is too few; give 1 or more")
    for argument in arguments:
        if not argument.startswith("--"):  # a value
            continue
        name = argument.split("=")[0].removeprefix("--")
        if name in ("trainer.devices", "trainer.num_nodes"):
            raise SettingError(
                f"{name}: each run here is one process's; omit it, or use layerwise train for a single run"
            )
        everywhere = re.sub(r"^layers(\.\d+)?(?=\.|$)", "layer", name)
        # a whole group, such as layer={...}, would set what is in it
        if any(f"{setting}.".startswith((f"{name}.", f"{everywhere}.")) for setting in ("seed", "run_dir", *own)):
            raise SettingError(f"{name}: each run here has its own; omit it, or use layerwise train for a single run")


def rows_at(table: Table, scale: str | None) -> list[Row]:
    """The rows of a table at a scale, without those that it leaves no neighbors; points are named by their own size."""
    if scale != "small" or table.small is None:
        return table.rows
    divisor = table.small
    shrunk = ((row, small(row.settings, divisor)) for row in table.rows)
    rows = [replace(row, settings=settings) for row, settings in shrunk if settings is not None]
    if table.axis is None:
        return rows
    letter, setting = table.axis
    return [replace(row, name=f"{letter} = {row.settings[setting]}") for row in rows]


def configured(
    rows: list[Row], group: str, seeds: int, arguments: list[str], recipe: str = "paper"
) -> dict[str, list[Job]]:
    """The runs that the rows need, by stack, one a seed; they differ from `recipe` by their settings and `arguments`.

    Each has a run directory of its own, runs/GROUP-DATA/ROW-seedN; the group is the table and its scale, DATA is the
    data set's name, and of a folder of images the folder's name and some digits that stand for where it lies.
    """
    deepest = {row.stack or row.name: row for row in sorted(rows, key=lambda row: row.depth)}
    runs: dict[str, list[Job]] = {name: [] for name in dict.fromkeys(row.stack or row.name for row in rows)}
    for name, jobs in runs.items():
        row, label = deepest[name], re.sub(r"\W+", "-", name.replace("Φ", "phi")).strip("-").lower()
        given = [f"--config={recipe}", f"--wandb.group={group}"]
        given += [f"--{setting}={value}" for setting, value in row.settings.items()]
        for seed in range(seeds):
            config = parse([*given, *arguments, f"--depth={row.depth}", f"--seed={seed}"])[0]
            data = config.data.name
            if data in OWN:
                root = Path(os.path.realpath(config.data.root))
                data = f"{root.name}-{hashlib.sha256(str(root).encode()).hexdigest()[:6]}"
            folder = f"runs/{group}-{data}/{label}-seed{seed}"
            jobs.append(Job(replace(config, run_dir=folder), row.end_to_end))
    for row in rows:
        if row.paced is not None:
            name, (other, depth) = row.stack or row.name, row.paced
            runs[name] = [
                replace(job, paced=(ahead, depth)) for job, ahead in zip(runs[name], runs[other], strict=True)
            ]
    return runs


def outcome(row: Row, jobs: list[Job]) -> Result:
    """The result of a row whose runs are finished."""
    of = 0 if row.end_to_end else row.depth - 1
    values = [100 * accuracies[of] for job in jobs if (accuracies := job.tested())]
    std = statistics.stdev(values) if len(values) > 1 else None
    seconds = sum(job.seconds(row.depth) for job in jobs)
    return Result(row.name, statistics.mean(values), std, len(values), row.paper, seconds)


def markdown(table: Table, results: list[Result]) -> str:
    """The table in Markdown, accuracies in per cent; what the paper has where it has any."""
    published = any(result.paper for result in results)
    columns = ["row", "ours" if published else "accuracy", *["paper, on CIFAR-10"] * published, "seconds"]
    lines = [f"{table.title}, test accuracy in %", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for result in results:
        ours = f"{result.mean:.2f}" + ("" if result.std is None else f" ± {result.std:.2f}")
        paper = ["" if result.paper is None else f"{result.paper:.2f}"] * published
        lines.append(f"| {' | '.join([result.row, ours, *paper, f'{result.seconds:.0f}'])} |")
    return "\n".join(lines)
