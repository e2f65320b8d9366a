"""layerwise patches: can a dictionary describe these patches? The paper's assumption, measured."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerwise.config import Config, Layer, Optimizer, SettingError
from layerwise.config.run import plain
from layerwise.console import print_table
from layerwise.data.splits import load_data
from layerwise.experiments.benchmark.steps import seconds_per_step, untrained_layer
from layerwise.experiments.patches.clusters import HELD_OUT, Band, bands, contrast, log_spaced, recommended_atoms, unit
from layerwise.experiments.patches.extent import covering, dimensions
from layerwise.experiments.patches.figures import clusters_figure, covering_figure, layers_figure
from layerwise.experiments.patches.sources import FEWEST, Source, of_features, of_photographs
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import parse
from layerwise.report.figures import Pixels
from layerwise.report.listener import save_figure
from layerwise.run.files import output_file, write_json
from layerwise.run.run import Run
from layerwise.run.tracker import Tracker

COUNTS = 20  # numbers of centroids
SHOWN_RADII = [1.2, 1.0, 0.8, 0.6, 0.4, 0.2]


@dataclass(frozen=True)
class Asked:
    """What the command was given."""

    settings: list[str]
    """as for layerwise train: --data.name, --seed, --run_dir, --wandb.mode and so on"""
    patch_size: int | None = None
    layer: str | None = None
    """RUN, for all its layers, or RUN:i"""
    photos: str | None = None
    photo_size: int | None = None
    patches: int = 262_144
    centroids: int = 1024
    seeds: int = 1
    json: str | None = None

    def sets(self, *names: str) -> bool:
        """Whether one of the settings begins so."""
        return any(setting.startswith(names) for setting in self.settings)


def patches(asked: Asked) -> dict[str, Any]:
    """Measure, print a table for each source, write figures and JSON.

    Returns what the JSON file holds: of the source, or of the last one, `curves`, `covering`, `dimension`,
    `recommended`; of several layers all of them in `layers`. Raises SettingError where something that was given does
    not fit.
    """
    file = output_file("--json", asked.json)
    _check(asked)
    config = parse(asked.settings)[0]
    if config.seed >= 2**62:
        raise SettingError(f"seed: {config.seed} is too large here; give one below {2**62}")
    title = "photographs" if asked.photos is None else Path(asked.photos).resolve().name
    if asked.layer is not None:
        title = Path(asked.layer.partition(":")[0]).name
    elif asked.sets("--data", "--config"):
        title = config.data.name
    folder = Path(config.run_dir or f"runs/patches-{_file_name(title)}")
    if (folder / "config.yaml").exists():
        raise SettingError(f"run_dir: {folder} holds a training; give another folder")
    results, curves, figures = dict[str, dict[str, Any]](), dict[str, dict[str, Band]](), dict[str, Pixels]()
    for sources in _sources(asked, config):
        name, draws = sources[0].name, [source.patches for source in sources]
        room = int(len(unit(contrast(draws[0]))) * (1 - HELD_OUT))
        if asked.centroids > room:
            raise SettingError(
                f"--centroids: {asked.centroids} is more than the {room} patches of {name} to be clustered; "
                "give fewer, or more --patches"
            )
        curves[name] = bands(draws, log_spaced(asked.centroids, COUNTS), config.seed)
        results[name] = _result(sources[0], curves[name], config.seed)
        figures[f"clusters-{_file_name(name)}"] = clusters_figure(curves[name], name)
        figures[f"covering-{_file_name(name)}"] = covering_figure(results[name]["covering"], name)
        _print(sources[0], curves[name], results[name])
    if len(curves) > 1:
        figures["layers"] = layers_figure(curves)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(folder / f"{name}.png", figure)
        print(f"figure: {folder / f'{name}.png'}")
    tracker = Tracker(config.wandb, folder, plain(config))
    tracker.open()
    tracker.figures(figures)
    tracker.close()
    value = next(reversed(results.values())) | ({"layers": results} if len(results) > 1 else {})
    if file is not None:
        write_json(file, value)
    return value


def _check(asked: Asked) -> None:
    for name, least in (("patch_size", 1), ("photo_size", 1), ("patches", FEWEST), ("centroids", 2), ("seeds", 1)):
        value = getattr(asked, name)
        if value is not None and value < least:
            raise SettingError(f"--{name}: {value} is too few; give {least} or more")
    has_data = asked.sets("--data", "--config")
    given = {"--layer": asked.layer is not None, "--photos": asked.photos is not None, "--data.name": has_data}
    names = [name for name, is_given in given.items() if is_given]
    if len(names) > 1 and not (names[0] == "--layer" and names[1] == "--data.name"):  # its data may have moved
        raise SettingError(f"{names[1]}: given as well as {names[0]}; give one of them")
    if asked.photo_size is not None and (asked.layer is not None or has_data):
        raise SettingError(f"--photo_size: {asked.photo_size}, but no photographs are measured; leave it out")


def _sources(asked: Asked, config: Config) -> Iterator[list[Source]]:
    """What is measured, one after the other, each drawn once a seed."""
    seeds, size = range(config.seed, config.seed + asked.seeds), asked.patch_size or 5
    if asked.layer is not None:
        path, _, number = asked.layer.partition(":") if not Path(asked.layer).is_dir() else (asked.layer, "", "")
        run = Run(path)
        records, data = run.finished(), run.data(config.data.root if asked.sets("--data.root") else None)
        if number and not (number.isdecimal() and 1 <= int(number) <= len(records)):
            raise SettingError(f"--layer: {number} is not one of the layers 1 to {len(records)} of {path}")
        for i in [int(number)] if number else range(1, len(records) + 1):
            below, own = run.stack().below(i), asked.patch_size or records[i - 1].config.patch_size
            yield [of_features(below, data, f"layer {i}", own, asked.patches, seed) for seed in seeds]
    elif asked.sets("--data", "--config"):
        data = load_data(config.data, config.seed)
        yield [of_features(FrozenStack(), data, config.data.name, size, asked.patches, seed) for seed in seeds]
    else:
        yield [of_photographs(asked.photos, asked.photo_size, size, asked.patches, seed) for seed in seeds]


def _result(source: Source, curves: dict[str, Band], seed: int) -> dict[str, Any]:
    dimension = source.patches.shape[1]
    atoms, reason = recommended_atoms(curves, source.available)
    c, h, w = source.shape
    side = min(h, w, max(32, source.patch_size))  # a photograph is not trained on as a whole
    layer = Layer(patch_size=source.patch_size, atoms=atoms, pool=1 if side < 8 else 4)
    optimizer, shape = Optimizer(), (c, side, side)
    seconds = seconds_per_step(untrained_layer(layer, shape, 10), optimizer, shape, 10, source.patches.device)
    measured, spectra = dimensions(source.patches)
    return {
        "source": source.name,
        "patches": len(source.patches),
        "patch_dimension": dimension,
        "patch_size": source.patch_size,
        "curves": {kind: asdict(band) for kind, band in curves.items()},
        "covering": covering(source.patches, curves, seed),
        "dimension": measured,
        "spectrum": spectra,
        "recommended": {
            "atoms": atoms,
            "neighbors": layer.k,
            "reason": reason,
            "embedding_dimension": atoms * dimension,
            "multiply_adds": 3 * (side - source.patch_size + 1) ** 2 * atoms * dimension,
            "side": side,
            "images_per_second": optimizer.batch_size / seconds,
        },
    }


def _print(source: Source, curves: dict[str, Band], result: dict[str, Any]) -> None:
    """What was measured, in words and columns."""
    c, s = source.shape[0], source.patch_size
    print(f"\n{source.name}: {len(source.patches)} patches of {s}×{s}×{c} = {result['patch_dimension']} dimensions")
    print("\nmean distance of a held-out patch of norm 1 to the nearest of so many centroids:")
    counts = curves["original"].centroids
    shown = sorted({min(range(len(counts)), key=lambda i: abs(counts[i] - 2**power)) for power in (1, 3, 5, 7, 9, 10)})
    table = [("", *(str(counts[i]) for i in shown))]
    for kind, band in curves.items():
        table.append((kind.replace("_", ", "), *(f"{band.distance[i]:.3f}" for i in shown)))
    print_table(table)
    print("\nballs that cover 95 % of the patches, an upper bound, by radius:")
    table = [("", *(f"{radius:g}" for radius in SHOWN_RADII), "power")]
    for kind, cover in result["covering"].items():
        balls = dict(zip(cover["radius"], cover["balls"], strict=True))
        cells = (f"{balls[radius]:.0f}" if radius in balls else "" for radius in SHOWN_RADII)
        table.append((kind, *cells, "–" if cover["slope"] is None else f"{cover['slope']:.1f}"))
    print_table(table)
    print()
    names, table = ("two_nn", "levina_bickel", "effective_rank"), [("", "TwoNN", "Levina-Bickel", "effective rank")]
    for kind in ("original", "whitened"):
        table.append((f"dimension, {kind}", *(f"{result['dimension'][f'{name}_{kind}']:.1f}" for name in names)))
    print_table(table)
    own = result["recommended"]
    for text in (
        f"recommended: N = {own['atoms']}, k = {own['neighbors']}. N: {own['reason']}. k: a quarter of N, as in the "
        "paper; between a quarter and a half accuracy hardly changes (Thiry et al. 2021).",
        f"Φ_full then has {own['embedding_dimension']} dimensions at a position. This machine trains such a layer on "
        f"{own['images_per_second']:.0f} images of side {own['side']} a second.",
    ):
        print("\n" + textwrap.fill(text, 79))


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-").lower() or "data"
