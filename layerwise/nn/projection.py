"""Norm and projection of an embedding in one pass: both are affine, so that their product is one matrix.

The norm a -> γ·(a - mean)/√(variance + ε) + β and the projection (W, b) make y = W'a + b', W' = W·γ/√(variance + ε):
the normalized embedding is never written down. And of an embedding of which few atoms are near to a window only those
take part, so that a dictionary costs what is near, not what there is.

Shapes: B batch, N atoms, D channels, h' w' side, M places for the atoms that are near to a window.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.ops.sparse import combine


class Sparse(NamedTuple):
    """An embedding as its numbers that are not zero, M for each window; places that are left over hold 0 of atom 0."""

    values: Tensor  # (B, h', w', M)
    atoms: Tensor  # (B, h', w', M) int32


def can_be_one(norm: nn.Module, projection: nn.Module, x: Tensor) -> bool:
    """Whether `projected` can do what these two do: not in a compiled program, nor where autocast rounds the second."""
    if torch.compiler.is_compiling() or x.is_meta or torch.is_autocast_enabled(x.device.type):
        return False
    return isinstance(norm, nn.BatchNorm2d | nn.Identity) and isinstance(projection, nn.Conv2d)


def projected(norm: nn.Module, projection: nn.Module, embedded: Tensor | Sparse) -> Tensor:
    """Map (B, N, h', w') to (B, D, h', w') by a norm and then a projection; in training the norm sees a batch."""
    assert isinstance(projection, nn.Conv2d) and projection.bias is not None
    weight, bias = projection.weight[:, :, 0, 0], projection.bias
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = moments(norm, embedded)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        weight, bias = weight * scale, bias + weight @ (norm.bias - mean * scale)
    if isinstance(embedded, Tensor):
        out = F.linear(embedded.permute(0, 2, 3, 1), weight, bias)
    else:
        values, atoms = (part.flatten(0, 2) for part in embedded)
        out = combine(values, atoms, weight.T) + bias
        out = out.view(*embedded.values.shape[:3], -1)
    return out.permute(0, 3, 1, 2)


def moments(norm: nn.BatchNorm2d, embedded: Tensor | Sparse) -> tuple[Tensor, Tensor]:
    """Mean and variance of each atom, (N,) each: of a batch, which is remembered; in eval mode what is remembered."""
    remembered = norm.running_mean, norm.running_var
    if not norm.training:
        return remembered  # type: ignore[return-value]
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    if isinstance(embedded, Tensor):
        mean, variance = _Moments.apply(embedded, *remembered, norm.momentum)
        return mean, variance
    values, atoms = embedded.values.flatten(), embedded.atoms.flatten()
    windows, zeros = embedded.values[..., 0].numel(), values.new_zeros(norm.num_features)
    mean = zeros.index_add(0, atoms, values) / windows
    # each window where an atom is not near deviates by the mean
    others = windows - zeros.index_add(0, atoms, torch.ones_like(values))
    squares = zeros.index_add(0, atoms, (values - mean.index_select(0, atoms)).square())
    variance = (squares + others * mean.square()) / windows
    with torch.no_grad():
        for old, new in zip(remembered, (mean, variance * (windows / (windows - 1))), strict=True):
            old.lerp_(new, norm.momentum)  # type: ignore[union-attr, arg-type]
    return mean, variance


class _Moments(torch.autograd.Function):
    """Mean and variance of (B, N, h', w') over all but N, in one pass each way; updates what is remembered."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float) -> tuple[Tensor, ...]:
        mean, variance = torch.batch_norm_update_stats(a, running_mean, running_var, momentum)
        ctx.save_for_backward(a, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        a, mean = ctx.saved_tensors
        count = a.numel() // a.shape[1]
        slope = 2 / count * of_variance
        constant = of_mean / count - slope * mean
        of_a = torch.addcmul(constant, slope, a.permute(0, 2, 3, 1))
        return of_a.permute(0, 3, 1, 2), None, None, None
