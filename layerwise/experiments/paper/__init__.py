"""python -m layerwise paper: the paper's tables and figures, each row trained and set beside the paper's number."""

import json
import re
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from layerwise.cli.command import device_of, train
from layerwise.cli.parsing import CONFIGS, parse
from layerwise.config.checks import check_fit, check_json, fit_layer
from layerwise.config.run import Config, SettingError
from layerwise.data.splits import load_data
from layerwise.experiments.paper.tables import TABLES, Row, Table, small
from layerwise.experiments.timing import seconds_a_step
from layerwise.nn.gates import check_gates
from layerwise.report.figures import curve_picture
from layerwise.report.page import save_picture
from layerwise.run.directory import DamagedRun, RunDir, RunInUse, commit, fingerprint, settings_of
from layerwise.run.evaluate import evaluate

FORWARD = 0.6
"""share of a training step that its forward pass takes, about"""
TESTED = "depths.json"
"""a run's test accuracies at every depth, written last"""


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


def reproduce(name: str, scale: str, seeds: int, path: str | None, arguments: list[str]) -> list[Result]:
    """Train every row of a table that is not trained yet, then print the table.

    Args:
        name: in `TABLES`.
        scale: full, or small: a quarter of the atoms (of figure 9 a sixteenth), 10 epochs.
        seeds: 0 to seeds - 1 for every row.
        path: a JSON file for the rows.
        arguments: further settings for every row, as for train.py, such as --data.root.

    Returns:
        A result a row.

    Raises:
        SettingError: a setting does not fit.
    """
    table = TABLES[name]
    rows = rows_at(table, scale)
    check_sweep(seeds, path, arguments, ("depth", "config", *_differing(rows)))
    runs = configured(rows, scale, seeds, name, arguments)
    by_seed = [config for configs in zip(*runs.values(), strict=True) for config in configs]
    open_runs = [config for config in by_seed if tested(config) is None]
    if open_runs:
        print(f"{table.title}: {len(open_runs)} runs to train", flush=True)
        print(f"about {_in_words(estimate(open_runs))}, by a short measurement", flush=True)
        for number, config in enumerate(open_runs, 1):
            print(f"\nrun {number} of {len(open_runs)}: {config.run_dir}", flush=True)
            try:
                if tested(config) is None:
                    train_and_test(config)
            except RunInUse:
                print("another process is at it", flush=True)
        elsewhere = sum(tested(config) is None for config in open_runs)
        if elsewhere:
            raise SettingError(
                f"{name}: another process still trains {elsewhere} of the runs; repeat this when it is done"
            )
    results = [outcome(row, runs[row.stack or row.name]) for row in rows]
    print("\n" + markdown(table, results))
    if table.axis is not None:
        points = [float(str(row.settings[table.axis[1]])) for row in rows]
        picture = curve_picture(points, [result.mean for result in results], [r.std for r in results], table.axis[0])
        place = Path(runs[rows[0].name][0].run_dir or "").parent / f"{name}.png"
        save_picture(place, picture)
        print(f"\npicture: {place}")
    if path is not None:
        text = json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False) + "\n"
        commit(Path(path), lambda file: file.write_text(text))
    return results


def check_sweep(seeds: int, path: str | None, arguments: list[str], own: tuple[str, ...]) -> None:
    """Refuse what cannot be given to a command of many runs.

    Args:
        seeds: how many.
        path: of a JSON file.
        arguments: settings for every run.
        own: settings that the command itself gives to each run, beside seed and run_dir.

    Raises:
        SettingError: naming what was given.
    """
    check_json(path)
    if seeds < 1:
        raise SettingError(f"--seeds: {seeds} is too few; give 1 or more")
    for argument in arguments:
        if not argument.startswith("--"):  # a value
            continue
        name = argument.split("=")[0].removeprefix("--")
        everywhere = re.sub(r"^layers(\.\d+)?(?=\.|$)", "layer", name)
        # a whole group, such as layer={...}, would set what is in it
        if any(f"{setting}.".startswith((f"{name}.", f"{everywhere}.")) for setting in ("seed", "run_dir", *own)):
            raise SettingError(f"{name}: each run here has its own; leave it out, or train a single run with train.py")


def _differing(rows: list[Row]) -> list[str]:
    """The settings that make a row: those in which rows differ."""
    names = dict.fromkeys(name for row in rows for name in row.settings)
    return [name for name in names if len({row.settings.get(name) for row in rows}) > 1]


def rows_at(table: Table, scale: str) -> list[Row]:
    """The rows of a table at a scale, without those that it leaves no neighbors; points are named by their own size."""
    if scale == "full":
        return table.rows
    shrunk = [(row, small(row.settings, table.small)) for row in table.rows]
    rows = [replace(row, settings=settings) for row, settings in shrunk if settings is not None]
    if table.axis is None:
        return rows
    letter, setting = table.axis
    return [replace(row, name=f"{letter} = {row.settings[setting]}") for row in rows]


def configured(rows: list[Row], scale: str, seeds: int, table: str, arguments: list[str]) -> dict[str, list[Config]]:
    """The runs that the rows need, by stack, a configuration a seed.

    Each has a run directory of its own, runs/TABLE-SCALE-DATA/ROW-seedN, DATA the folder's name for image_folder.
    """
    deepest = {row.stack or row.name: row for row in sorted(rows, key=lambda row: row.depth)}
    runs: dict[str, list[Config]] = {name: [] for name in dict.fromkeys(row.stack or row.name for row in rows)}
    for name, configs in runs.items():
        label = re.sub(r"\W+", "-", name.replace("Φ", "phi")).strip("-").lower()
        row = deepest[name]
        given = [f"--{setting}={value}" for setting, value in row.settings.items()]
        for seed in range(seeds):
            config, _ = parse(
                ["--config", str(CONFIGS / "paper.yaml"), f"--wandb.group={table}-{scale}", *given, *arguments]
                + [f"--depth={row.depth}", f"--seed={seed}"]
            )
            data = Path(config.data.root).resolve().name if config.data.name == "image_folder" else config.data.name
            folder = f"runs/{table}-{scale}-{data}/{label}-seed{seed}"
            configs.append(replace(config, run_dir=folder))
    return runs


def tested(config: Config) -> list[float] | None:
    """Test accuracies in [0, 1] at depth 1, 2, …; None where the run is not finished, or is another.

    Raises:
        DamagedRun: a file of the run is not as it was written.
    """
    folder = Path(config.run_dir or "")
    if not (folder / TESTED).exists():
        return None
    try:
        stored, _ = parse(["--config", str(folder / "config.yaml")])  # what it does not name has its default
        accuracies: list[float] = json.loads((folder / TESTED).read_text())
    except (OSError, ValueError) as error:
        raise DamagedRun(
            f"{folder} holds a damaged {TESTED} or config.yaml; delete the folder to train anew"
        ) from error
    return accuracies if _deciding(stored) == _deciding(config) else None


def _deciding(config: Config) -> dict[str, Any]:
    """What of a configuration decides the accuracy: not where it is computed, nor where a known data set lies."""
    own_images = config.data.name == "image_folder"
    return settings_of(
        config,
        config.deepest,
        digest=fingerprint({"root": str(Path(config.data.root).resolve())}) if own_images else "",
    )


def train_and_test(config: Config) -> None:
    """Train a run, or what is left of it, and test it at every depth."""
    assert config.run_dir is not None
    train(config, config.run_dir)
    RunDir(config.run_dir).save_json(TESTED, evaluate(config.run_dir))


def outcome(row: Row, configs: list[Config]) -> Result:
    """The result of a row whose runs are finished."""
    accuracies, seconds = [], 0.0
    for config in configs:
        by_depth = tested(config)
        assert by_depth is not None and config.run_dir is not None
        accuracies.append(100 * by_depth[row.depth - 1])
        summary = json.loads((Path(config.run_dir) / "summary.json").read_text())
        seconds += sum(layer["seconds"] for layer in summary["layers"][: row.depth])
    std = statistics.stdev(accuracies) if len(accuracies) > 1 else None
    return Result(row.name, statistics.mean(accuracies), std, len(accuracies), row.paper, seconds)


def estimate(configs: list[Config]) -> float:
    """Seconds of what is left to train, from a few steps of each layer, on random numbers.

    Left out are dictionaries, tests, and what half-trained layers have behind them.

    Raises:
        SettingError: a run does not fit the data or the machine.
    """
    data = load_data(configs[0].data, configs[0].seed)
    for config in configs:
        check_gates(config)
        check_fit(config, *data.shape, len(data.train))
    known: dict[str, float] = {}
    total = 0.0
    for config in configs:
        shape, below = data.shape, 0.0
        epochs, views = config.optimizer.epochs, config.features.views
        steps = len(data.train) // config.optimizer.batch_size
        for number in range(1, config.deepest + 1):
            output = fit_layer(config, number, shape, len(data.train))
            settings = config.layer_config(number), config.optimizer_config(number)
            key = repr((settings, shape))
            if key not in known:
                known[key] = seconds_a_step(*settings, shape, len(data.classes), device_of(config))
            if not (Path(config.run_dir or "") / f"layer-{number}" / "layer.json").exists():
                validation = FORWARD * len(data.val) / len(data.train)
                total += steps * (epochs * known[key] * (1 + validation) + (min(views, epochs) or epochs) * below)
            below = FORWARD * known[key] + (0.0 if views else below)
            shape = output
    return total


def markdown(table: Table, results: list[Result]) -> str:
    """The table in Markdown, accuracies in per cent."""
    lines = [f"{table.title}, test accuracy in %", "", "| row | ours | paper | seconds |", "|---|---|---|---|"]
    for result in results:
        ours = f"{result.mean:.2f}" + ("" if result.std is None else f" ± {result.std:.2f}")
        paper = "" if result.paper is None else f"{result.paper:.2f}"
        lines.append(f"| {result.row} | {ours} | {paper} | {result.seconds:.0f} |")
    return "\n".join(lines)


def _in_words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
