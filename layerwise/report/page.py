"""report.html: the story of a run, on one page that needs nothing else."""

import base64
import io
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import torch
import yaml
from PIL import Image

from layerwise.config.identity import decisive
from layerwise.config.run import Config, plain
from layerwise.console import in_words
from layerwise.data.images import Images
from layerwise.data.splits import DataSet
from layerwise.nn.stack import FrozenStack
from layerwise.parsing import RECIPES, read_config, recipes
from layerwise.report.charts import accuracy_chart, learning_chart, usage_chart
from layerwise.report.figures import Pixels, as_svg
from layerwise.report.listener import SHOWN
from layerwise.report.pictures import as_picture, some_of_each, usage
from layerwise.run.files import commit
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from layerwise.training.evaluation import Evaluation

T = TypeVar("T")
MATRIX = 24
"""classes, at most, of which the whole confusion matrix is shown"""
PAIRS, EXAMPLES = 10, 12
"""confusions, and images, that are shown"""
CAPTIONS = {
    "atoms": "Atoms as patches of pixels: whitening undone, less the mean patch, each at its own contrast.",
    "whitened": "The same atoms as they are compared with patches: whitened.",
    "answers": "Each group: the parts of validation images that an atom answers to most.",
}


def write_report(
    run: Run,
    stack: FrozenStack,
    records: Sequence[LayerRecord],
    data: DataSet,
    tested: Evaluation,
    summary: Mapping[str, Any],
) -> None:
    """Write report.html of a finished run, and draw its charts; one that fails lacks."""
    config = run.config
    nearest, differing = _differing(config)
    some = some_of_each(data.val, SHOWN)
    layers = [
        {"record": record, "settings": config.layer_at(i), "test": tested.accuracies[i - 1]}
        | _drawn(run, record, FrozenStack(stack.layers[:i]), some)
        for i, record in enumerate(records, 1)
    ]
    counts = tested.confusion()
    values = {
        "name": run.path.resolve().name,
        "path": repr(str(run.path)),
        "shell_path": shlex.quote(str(run.path)),
        "data": config.data,
        "shape": data.shape,
        "images": {"training": data.train, "validation": data.val, "test": data.test},
        "per_class": _per_class(data, tested),
        "summary": summary,
        "asked": config.depth,
        "took": in_words(summary["seconds"]),
        "error": tested.standard_errors[-1],
        "chance": max(counts.sum(1).tolist()) / max(1, len(tested)),
        "layers": layers,
        "accuracy": _chart(lambda: accuracy_chart(records, tested)),
        "learning": _chart(lambda: learning_chart(records)),
        "classes": data.classes,
        "matrix": counts.tolist() if len(data.classes) <= MATRIX else None,
        "pairs": tested.confusions()[:PAIRS],
        "totals": counts.sum(1).tolist(),
        "mistakes": _examples(data, tested, right=False),
        "hits": _examples(data, tested, right=True),
        "calibration": tested.calibration_error(),
        "nearest": nearest,
        "differing": differing,
        "settings": yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True),
    }
    page = template("run.html").render(values)
    commit(run.path / "report.html", lambda temporary: temporary.write_text(page, "utf-8", "replace"))


def _drawn(run: Run, record: LayerRecord, stack: FrozenStack, images: Images) -> dict[str, Any]:
    """Pictures of the top layer of a stack, and how often its atoms take part in images."""
    kinds = ("atoms", "whitened") if record.sees_images else ("answers",)
    files = {kind: run.path / f"layer-{record.layer}-{kind}.png" for kind in kinds}
    pictures = [(kind, CAPTIONS[kind], _encoded(file.read_bytes())) for kind, file in files.items() if file.exists()]
    if (shares := _attempted(lambda: usage(stack, images))) is None:
        return {"pictures": pictures}
    chart = _chart(lambda: usage_chart(shares))
    return {"pictures": pictures, "usage": chart, "unused": int((shares == 0).sum())}


@cache
def template(name: str) -> jinja2.Template:
    """A page without its values; what is put into it is text, never markup, unless it was made here."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share, digits=1: "–" if share is None else f"{100 * share:.{digits}f}"
    return environment.get_template(name)


def _per_class(data: DataSet, tested: Evaluation) -> list[dict[str, Any]]:
    """Of each class its images in each split, and the share of those in the test that are right."""
    columns = [
        torch.bincount(images.labels, minlength=len(data.classes)).tolist()
        for images in (data.train, data.val, data.test)
    ]
    named = zip(data.classes, zip(*columns, strict=True), tested.by_class(), strict=True)
    return [{"name": name, "counts": counts, "right": right} for name, counts, right in named]


def _examples(data: DataSet, tested: Evaluation, right: bool) -> list[dict[str, Any]]:
    """The test images that were classified rightly, or wrongly, with the highest probability; hits from all classes."""
    best, share = tested.ranked[-1, :, 0], tested.shares[-1, :, 0]
    order = share.argsort(descending=True, stable=True).tolist()
    found = (i for i in order if (best[i] == tested.labels[i]) == right)
    chosen = list(_spread(found, best.tolist()) if right else islice(found, EXAMPLES))
    return [
        {
            "image": _encoded(_png(as_picture(data.test.pixels[i]))),
            "taken": data.classes[int(best[i])],
            "true": data.classes[int(tested.labels[i])],
            "share": float(share[i]),
            "file": data.test.names[i] if data.test.names else f"image {i}",
        }
        for i in chosen
    ]


def _spread(found: Iterator[int], classes: Sequence[int]) -> Iterator[int]:
    """The first of each class, as many as are shown."""
    firsts: dict[int, int] = {}
    for i in found:
        firsts.setdefault(classes[i], i)
    return islice(iter(firsts.values()), EXAMPLES)


def _differing(config: Config) -> tuple[str, list[tuple[str, Any, Any]]]:
    """The recipe that a configuration is nearest to, and (setting, its value, the recipe's) where they differ."""
    own = decisive(config)
    found = {}
    for name, other in _decisive_recipes().items():
        names = [key for key in own | other if own.get(key) != other.get(key)]
        found[name] = [(key, own.get(key, "as for all layers"), other.get(key, "as for all layers")) for key in names]
    nearest = min(found, key=lambda name: (len(found[name]), name))
    return nearest, found[nearest]


@cache
def _decisive_recipes() -> dict[str, dict[str, Any]]:
    """What each recipe sets; reading them takes longer than training a small layer."""
    return {name: decisive(read_config(RECIPES / f"{name}.yaml")) for name in recipes()}


def _attempted(make: Callable[[], T]) -> T | None:
    """What is made, or nothing where that fails, which is said."""
    try:
        return make()
    except Exception as error:
        print(f"the report lacks a part, all else goes on: {error!r}", flush=True)
        return None


def _chart(draw: Callable[[], Any]) -> str | None:
    return _attempted(lambda: as_svg(draw()))


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _encoded(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
