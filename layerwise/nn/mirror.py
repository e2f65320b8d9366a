"""What mirroring, left for right, does to what a layer is given and makes.

A mirrored layer holds its channels in pairs: the second half is what the first half would be of the mirror image,
mirrored back. So the mirror image of its output (B, D, h, w) has the columns reversed and the halves exchanged; of an
image, whose channels are no pairs, only the columns are reversed.

Shapes: B batch, C channels, s patch side, P = s*s*C patch dimension, N atoms, D channels out.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.ops.pairs import Half, halves


def patch_mirror(channels: int, size: int, paired: bool) -> Tensor:
    """Where each number of a mirrored patch comes from, (P,) int64; it is its own inverse."""
    places = torch.arange(size * size * channels).view(size, size, channels).flip(1)
    return (exchanged(places, 2) if paired else places).flatten()


def exchanged(values: Tensor, dim: int) -> Tensor:
    """The halves along a dimension exchanged."""
    first, second = values.chunk(2, dim)
    return torch.cat([second, first], dim)


def folded(maps: Tensor) -> Tensor:
    """The sum of both of each pair, the second mirrored back: (B, D, h, w) to (B, D/2, h, w).

    It is what a linear model sees whose answer is the same for an image and its mirror image.
    """
    first, second = maps.chunk(2, 1)
    return first + second.flip(3)


class Mirror(NamedTuple):
    """Mirroring as a change of places and signs, (Mz)_i = signs_i z_order_i: symmetric, and its own inverse."""

    order: Tensor  # (P,) int64
    signs: Tensor  # (P,)

    def __call__(self, values: Tensor) -> Tensor:
        """The mirror image of (..., P)."""
        return values[..., self.order] * self.signs

    def halves(self) -> tuple[Half, Half]:
        """What it leaves as it is, and what changes its sign."""
        return halves(self.order, self.signs)

    def apart(self, atoms: Tensor, generator: torch.Generator) -> Tensor:
        """Atoms (n, P), of which those that are their own mirror images are moved by a thousandth of the mean norm.

        The two of such a pair would be equally near to every patch: where only one of them can be among the nearest, it
        would be the first, for a patch and for its mirror image.
        """
        unit = float(atoms.norm(dim=1).mean()) / 1000
        alike = (atoms - self(atoms)).norm(dim=1) <= unit
        moves = torch.randn(int(alike.sum()), atoms.shape[1], generator=generator).to(atoms)
        return atoms.masked_scatter(alike[:, None], atoms[alike] + unit * F.normalize(moves, dim=1))

    def closed(self, values: Tensor) -> Tensor:
        """(n, P) followed by the mirror images, (2n, P)."""
        return torch.cat([values, self(values)])


def mirror_of(whitening: Tensor, order: Tensor) -> Mirror:
    """Mirroring in whitened coordinates, z -> (z - mean) @ whitening (P, P), from that of patches, (P,).

    Principal components are even or odd: mirroring changes the sign of the odd ones.
    """
    columns = F.normalize(whitening, dim=0)
    alike = columns.T @ columns[order]
    places = alike.abs().argmax(0)
    return Mirror(places, alike.gather(0, places[None])[0].sign())


class PairedProjection(nn.Conv2d):
    """A projection of N channels in pairs to D in pairs, of which it holds the first half, (D/2, N)."""

    def whole(self) -> tuple[Tensor, Tensor]:
        """Weight (D, N, 1, 1) and bias (D,)."""
        assert self.bias is not None
        return torch.cat([self.weight, exchanged(self.weight, 1)]), torch.cat([self.bias, self.bias])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, N, h, w) to (B, D, h, w)."""
        return F.conv2d(x, *self.whole())
