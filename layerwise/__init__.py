"""Train deep patch-based networks greedily, one layer at a time.

`train(recipe("digits", "--depth=2"))` trains a stack as the command does, and `load(run_dir)` gives one that was
trained, with `.transform(images)` and `.predict(images)`. Settings are dataclasses, `layerwise.config`.
"""

from typing import TYPE_CHECKING, Any

from layerwise.config import Config, Data, Gate, Layer, Optimizer
from layerwise.version import VERSION as __version__

if TYPE_CHECKING:
    from layerwise.api import load, recipe, train

__all__ = ["Config", "Data", "Gate", "Layer", "Optimizer", "__version__", "load", "recipe", "train"]


def __getattr__(name: str) -> Any:
    if name in ("load", "recipe", "train"):  # torch is imported only once something needs it
        from layerwise import api

        return getattr(api, name)
    raise AttributeError(f"module 'layerwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
