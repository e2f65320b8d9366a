"""Train deep patch-based networks greedily, one layer at a time.

`train(config)` trains a stack as the command does, and `load(run_dir)` gives one that was trained, with
`.transform(images)` and `.predict(images)`. Settings are dataclasses: `Config(depth=2, layer=Layer(atoms=512))`.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from layerwise.config import Config, Data, Layer, Optimizer

if TYPE_CHECKING:
    from layerwise.api import load, train

__all__ = ["Config", "Data", "Layer", "Optimizer", "__version__", "load", "train"]

try:
    __version__ = version("layerwise")
except PackageNotFoundError:  # a source folder that is used without being installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name in ("load", "train"):  # torch is imported only once something needs it
        from layerwise import api

        return getattr(api, name)
    raise AttributeError(f"module 'layerwise' has no attribute {name!r}")
