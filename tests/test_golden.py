"""What is computed stays what it was, within rounding.

`python -m tests.golden` compares to the bit, on one processor. Elsewhere sums have another order, which in what is
trained upon a trained layer is more than rounding: a near tie of k-means, or a gradient of almost nothing whose sign
AdamW goes by, may be decided otherwise.
"""

from collections.abc import Iterable, Iterator

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import golden

EXPECTED = load_file(golden.FILE)
ABOVE = "weights 2", "logits"
"""what lies above a trained layer"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums then have one order, however many cores there are; for tensors so small it is also the fastest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def differing(found: Iterable[tuple[str, Tensor]], names: set[str]) -> list[str]:
    """What of these names is not computed, or is not as the file holds it; what is computed beyond them, too."""
    computed = dict(found)
    return sorted(
        (computed.keys() ^ names) | {name for name in computed.keys() & names if not close(name, computed[name])}
    )


def close(name: str, value: Tensor) -> bool:
    """Whether a value is that of the file, but for what processors differ in."""
    expected = EXPECTED[name]
    if value.shape != expected.shape:
        return False
    if torch.allclose(value, expected, rtol=1e-4, atol=1e-5):
        return True
    return name.endswith(ABOVE) and float((value - expected).norm() / expected.norm()) < 0.02


def named(names: Iterable[str]) -> set[str]:
    """The entries of the file that begin so."""
    return {entry for entry in EXPECTED if entry.split(": ")[0] in set(names)}


def test_golden__holds_what_is_computed_and_nothing_else() -> None:
    assert not golden.LAYERS.keys() & golden.RECIPES.keys()
    assert named([*golden.LAYERS, *golden.RECIPES]) == EXPECTED.keys()


def test_single_layers__are_what_they_were() -> None:
    names = named(golden.LAYERS)
    assert names and differing(golden.single_layers(), names) == []


@pytest.mark.parametrize("recipe", golden.RECIPES)
def test_recipes__train_to_what_they_did(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "RECIPES", {recipe: golden.RECIPES[recipe]})
    monkeypatch.chdir(golden.FILE.parent.parent)  # the recipes' place
    names = named([recipe])
    assert names and differing(golden.recipes(), names) == []
