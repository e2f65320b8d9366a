"""Train deep patch-based networks greedily, one layer at a time.

`load(run_dir)` gives a trained stack, with `.transform(images, layer=None)` and `.predict(images)`.
"""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # torch is imported only once something needs it
        from layerwise.run.trained import load

        return load
    raise AttributeError(f"module 'layerwise' has no attribute {name!r}")
