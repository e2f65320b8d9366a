"""All that a layer's weights depend on: what may not change within a run, and what keeps two runs apart."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerwise.config.run import Config, SingleLayer, plain

OWN = ("image_folder", "image_shards")
"""data sets that are the user's own, known by where they lie"""


def settings_of(config: Config, number: int, digest: str, below: str = "") -> dict[str, Any]:
    """All that the weights of layer `number`, from 1, depend on: the data's digest, and every layer up to it, too.

    `below` stands for the files of the layer that it is stacked on; see `Run.identity`.
    """
    data = {name: value for name, value in asdict(config.data).items() if name not in ("root", "download")}
    settings: dict[str, Any] = {"seed": config.seed, "data": data | {"content": digest[:16]}}
    settings["trainer"] = {"precision": config.trainer.precision}
    if number > 1:
        settings |= {"features": asdict(config.features), "below": below}
    return settings | {f"layer {i}": asdict(config.layer_at(i)) for i in range(1, number + 1)}


def fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def changes(old: dict[str, Any], new: dict[str, Any], config: Config, images: Callable[[], str]) -> list[str]:
    """What differs between settings, each with both values, by the names that the command uses.

    `images` says what has changed of the data where its digest has, though nothing that chooses among the images.
    """
    # what another version did not record is as it is by default
    usual = flat({group: asdict(SingleLayer()) for group in old if group.startswith("layer ")})
    before, after = dict(flat(old)), dict(flat(new))
    before |= {name: value for name, value in usual if name not in before}
    told, differing = [], [name for name in before if before[name] != after.get(name)]
    chosen = any(name == "seed" or name.startswith("data.") for name in differing if name != "data.content")
    for name in differing:
        group, _, rest = name.partition(".")
        if name == "data.content" and not chosen:
            given = config.data.name == "arrays"
            held = "data: the arrays hold" if given else f"data.root: {config.data.root} holds"
            told.append(f"{held} other images than those that were trained on ({images()})")
        elif name not in ("data.content", "below"):
            number = group.removeprefix("layer ")
            known = number != group and name in after
            shown = config.name_of(int(number), rest) if known else name.replace("layer ", "layers.")
            now, then = ("null" if value is None else value for value in (after.get(name), before[name]))
            told.append(f"{shown}: {now}, but {group if number != group else 'the run'} was trained with {then}")
    return told


def flat(settings: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by names with dots."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def without_data(config: Config, number: int) -> dict[str, Any]:
    """As `settings_of`, before the data is read: a folder of images is known by where it lies."""
    root = os.path.realpath(os.path.expanduser(config.data.root))
    return settings_of(config, number, fingerprint({"root": root}) if config.data.name in OWN else "")


def decisive(config: Config) -> dict[str, Any]:
    """The settings that decide what comes out at a depth, by names with dots: none of where, and how it is shown."""
    aside = ["wandb.", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"]
    aside += ["run_dir", "depth", "data.download"]
    aside += ["data.root"] * (config.data.name not in OWN)
    return {name: value for name, value in flat(plain(config)) if not name.startswith(tuple(aside))}


def default_run_dir(config: Config, recipe: Config | None = None, name: str = "python", digest: str = "") -> str:
    """runs/<recipe>-seed<seed>, and where anything else decides the weights, a suffix that stands for it.

    Two folders of images, or two settings of a recipe, never meet in one directory, nor do two sets of arrays, which
    their `digest` tells apart; two depths of one stack do. Under an agent of W&B's, whose sweep may try the same
    settings twice, it is runs/sweep-<sweep>/<run> instead.
    """
    if (sweep := os.environ.get("WANDB_SWEEP_ID")) and (given := os.environ.get("WANDB_RUN_ID")):
        return "runs/sweep-{}/{}".format(*(re.sub(r"[^\w-]+", "-", part) for part in (sweep, given)))
    base = f"runs/{name}-seed{config.seed}"
    # the first layer above all that have settings of their own stands for those of every depth
    above = max([1, *config.layers, *(recipe.layers if recipe else [])]) + 1
    own = without_data(config, above) | ({"arrays": digest} if config.data.name == "arrays" else {})
    if recipe is not None and own == without_data(recipe, above) | {"seed": config.seed}:
        return base
    folder = re.sub(r"\W+", "-", Path(os.path.realpath(config.data.root)).name).strip("-")[:40]
    shown = [folder] if config.data.name in OWN and folder else []
    return "-".join([base, *shown, fingerprint(own)[:6]])
