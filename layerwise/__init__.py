"""Train deep patch-based networks greedily, one layer at a time.

`train(recipe("digits", "--depth=2"))` trains a stack as the command does, and `load(run_dir)` gives one that was
trained, with `.transform(images)` and `.predict(images)`. `dataset(images, labels)` makes a data set of arrays, and
`LayerwiseClassifier` is an estimator for scikit-learn. Settings are dataclasses, `layerwise.config`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerwise.config import Config, Data, Gate, Layer, Optimizer
from layerwise.version import VERSION as __version__

if TYPE_CHECKING:
    from layerwise.api import recipe, train
    from layerwise.classifier import LayerwiseClassifier
    from layerwise.data.arrays import dataset
    from layerwise.trained import load

__all__ = ["Config", "Data", "Gate", "Layer", "LayerwiseClassifier", "Optimizer", "__version__"]
__all__ += ["dataset", "load", "recipe", "train"]

_HOMES = {"load": "trained", "recipe": "api", "train": "api", "dataset": "data.arrays"}
_HOMES["LayerwiseClassifier"] = "classifier"


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # torch is imported only once something needs it
        return getattr(import_module(f"layerwise.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'layerwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
