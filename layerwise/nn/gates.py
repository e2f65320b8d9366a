"""Gates: how much of each atom's map a patch gets.

A new gate is a function here and its name in `GATES`, and in `SMOOTH` if gradient flows through it to the distances.

Shapes: N atoms, k neighbors. A gate is given half the squared distance of patches to every atom, (..., N), and k, and
gives a weight for each, (..., N). `nearest` alone has compiled backends (`layerwise.ops`); the others run in torch.
"""

from collections.abc import Callable

from torch import Tensor

from layerwise.config.run import Config, SettingError
from layerwise.ops.reference import nearest_mask

Gate = Callable[[Tensor, int], Tensor]


def nearest(distance: Tensor, k: int) -> Tensor:
    """1 for the k nearest atoms, of equally near ones those with the lowest index: the paper's gate."""
    return nearest_mask(distance, k).to(distance.dtype)


def kth(distance: Tensor, k: int) -> Tensor:
    """1 for the k-th nearest atom alone."""
    farther = nearest_mask(distance, k)
    return (farther & ~nearest_mask(distance, k - 1)).to(distance.dtype) if k > 1 else farther.to(distance.dtype)


def soft(distance: Tensor, k: int) -> Tensor:
    """A sigmoid that is 1/2 at the k-th nearest atom and falls with distance (Thiry et al. 2021).

    Its unit is a quarter of the patch's standard deviation over atoms. Gradient flows to the distances.
    """
    threshold = distance.detach().kthvalue(k, dim=-1, keepdim=True).values
    unit = distance.detach().std(-1, keepdim=True, correction=0).clamp_min(1e-12) / 4
    return ((threshold - distance) / unit).sigmoid()


def triangle(distance: Tensor, k: int) -> Tensor:
    """By how much an atom is nearer than atoms are on average, else 0 (Coates, Ng & Lee 2011); k has no part in it.

    Gradient flows to the distances.
    """
    plain = (2 * distance.clamp_min(1e-12)).sqrt()
    return (plain.mean(-1, keepdim=True) - plain).relu()


GATES: dict[str, Gate] = {"nearest": nearest, "kth": kth, "soft": soft, "triangle": triangle}
SMOOTH = {"soft", "triangle"}


def check_gates(config: Config) -> None:
    """Refuse a gate that there is not, or that nothing would use, and learned atoms that no gradient would reach.

    Raises:
        SettingError: naming the layer.
    """
    for number in range(1, config.deepest + 1):
        layer = config.layer_config(number)
        if layer.gate not in GATES:
            raise SettingError(f"layer {number}: gate {layer.gate} is not one of {', '.join(GATES)}; see --help")
        if layer.embedding == "relu" and layer.gate != "nearest":
            raise SettingError(
                f"layer {number}: the embedding relu has no gate; leave out gate {layer.gate}, or change either"
            )
        if layer.learn_atoms and layer.embedding == "relu":
            raise SettingError(
                f"layer {number}: the embedding relu has no atoms, so that learn_atoms would learn nothing"
            )
        if layer.learn_atoms and layer.gate not in SMOOTH:
            raise SettingError(
                f"layer {number}: no gradient flows through the gate {layer.gate}, so that learn_atoms would learn "
                f"nothing; give --layer.gate {' or '.join(sorted(SMOOTH))}"
            )
