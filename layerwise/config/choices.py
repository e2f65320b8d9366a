"""The choices: what a setting may name, such as the gates. Each is named once, where it is implemented.

The implementing module marks a class or function with the setting's decorator, and any other package may do the same:

    @GATES("soft")
    class Soft(DistanceGate):
        \"\"\"A sigmoid that is 1/2 at the k-th nearest atom.\"\"\"

Names and meanings are read off the source, so that --help lists them without importing torch.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from layerwise.errors import SettingError

T = TypeVar("T")
PACKAGE = Path(__file__).parent.parent


@dataclass(eq=False)
class Choices(Mapping[str, Any]):
    """The choices of one setting, by name; asking for one imports the module that implements it."""

    own_name: str
    """of the variable that this object is assigned to, which is the decorator's name"""
    home: str
    """the module that implements them, or the package of such modules, below `layerwise`"""
    _made: dict[str, Any] = field(default_factory=dict, init=False)

    def __call__(self, name: str) -> Callable[[T], T]:
        """The decorator that gives a name to a class or function."""

        def add(made: T) -> T:
            self._made[name] = made
            return made

        return add

    @cached_property
    def _written(self) -> dict[str, tuple[str, str]]:
        """Of each choice within this package: its module and its meaning, the first paragraph of its docstring."""
        place = PACKAGE.joinpath(*self.home.split("."))
        found = {}
        for path in [place.with_suffix(".py")] if not place.is_dir() else sorted(place.glob("*.py")):
            module = ".".join(("layerwise", *path.relative_to(PACKAGE).with_suffix("").parts))
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                    continue
                for mark in node.decorator_list:
                    match mark:
                        case ast.Call(func=ast.Name(id=self.own_name), args=[ast.Constant(value=str(name))]):
                            found[name] = module, _meaning(ast.get_docstring(node))
        return found

    def meanings(self) -> dict[str, str]:
        """What each name stands for, in a sentence."""
        own = {name: meaning for name, (_, meaning) in self._written.items()}
        return own | {name: _meaning(made.__doc__) for name, made in self._made.items() if name not in own}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made and name in self._written:
            import_module(self._written[name][0])
        if name not in self._made:
            raise SettingError(f"{name} is not one of {', '.join(self)}; import the module that defines it first")
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._written, **self._made})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._written or name in self._made


def _meaning(docstring: str | None) -> str:
    """The first paragraph, as one line."""
    return " ".join((docstring or "").split("\n\n")[0].split())


EMBEDDINGS = Choices("EMBEDDINGS", "nn.embedding")
DICTIONARIES = Choices("DICTIONARIES", "nn.dictionary")
GATES = Choices("GATES", "nn.gates")
METRICS = Choices("METRICS", "nn.dictionary")
MAPS = Choices("MAPS", "nn.embedding")
WHITENINGS = Choices("WHITENINGS", "nn.whitening")
FORMULAS = Choices("FORMULAS", "nn.whitening")
NORMS = Choices("NORMS", "nn.layer")
RESIDUALS = Choices("RESIDUALS", "nn.residual")
PROBES = Choices("PROBES", "nn.probe")
STARTS = Choices("STARTS", "nn.probe")
DATASETS = Choices("DATASETS", "data.sets")
BORDERS = Choices("BORDERS", "data.images")
PIXELS = Choices("PIXELS", "data.images")
SHIFTS = Choices("SHIFTS", "data.images")
OPTIMIZERS = Choices("OPTIMIZERS", "training.optimizers")
SCHEDULES = Choices("SCHEDULES", "training.optimizers")
