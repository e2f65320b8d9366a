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

from layerwise import processes
from layerwise.nn.mirror import PairedProjection, exchanged
from layerwise.ops.sparse import combine, deviations, scaled


class Sparse(NamedTuple):
    """An embedding as its numbers that are not zero, M for each window; places that are left over hold 0 of atom 0."""

    values: Tensor  # (B, h', w', M)
    atoms: Tensor  # (B, h', w', M) int32


def can_be_one(norm: nn.Module, projection: nn.Module, x: Tensor) -> bool:
    """Whether `projected` can do what these two do: not in a compiled program, nor where autocast rounds the second."""
    if torch.compiler.is_compiling() or x.is_meta or torch.is_autocast_enabled(x.device.type):
        return False
    # of a norm that is defined elsewhere nothing is known, though it may be one of these, too
    return type(norm) in (nn.BatchNorm2d, nn.Identity) and type(projection) in (nn.Conv2d, PairedProjection)


def projected(norm: nn.Module, projection: nn.Module, embedded: Tensor | Sparse) -> Tensor:
    """Map (B, N, h', w') to (B, D, h', w') by a norm and then a projection; in training the norm sees a batch.

    A paired projection's norm has N/2 channels, each that of a pair.
    """
    assert isinstance(projection, nn.Conv2d) and projection.bias is not None
    weight, bias, pairs = projection.weight, projection.bias, isinstance(projection, PairedProjection)
    if isinstance(projection, PairedProjection):
        weight, bias = projection.whole()
    weight, outputs = weight[:, :, 0, 0], len(bias)
    rows = embedded.permute(0, 2, 3, 1) if isinstance(embedded, Tensor) else embedded.values
    if isinstance(norm, nn.BatchNorm2d) and norm.training and isinstance(embedded, Tensor):
        mean, variance = _of_batch(norm, embedded.detach(), pairs)
        gamma, beta, mean, variance = (_of_all(one, pairs) for one in (norm.weight, norm.bias, mean, variance))
        inputs = gamma, beta, weight, bias, mean, variance, norm.eps, pairs
        out: Tensor = _Normalized.apply(rows.flatten(0, 2), *inputs)
        return out.view(*rows.shape[:3], outputs).permute(0, 3, 1, 2)
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = norm.running_mean, norm.running_var  # type: ignore[assignment]
        if norm.training and isinstance(embedded, Sparse):
            mean, variance = _of_few(norm, embedded, pairs)
        scale = norm.weight * (variance + norm.eps).rsqrt()
        shift = norm.bias - mean * scale
        weight, bias = weight * _of_all(scale, pairs), bias + weight @ _of_all(shift, pairs)
    if isinstance(embedded, Tensor):
        out = F.linear(rows, weight, bias)
    else:
        out = combine(rows.flatten(0, 2), embedded.atoms.flatten(0, 2), weight.T) + bias
    return out.view(*rows.shape[:3], outputs).permute(0, 3, 1, 2)


def _of_all(values: Tensor, pairs: bool) -> Tensor:
    """The values of all channels, (N,), from those of pairs, (N/2,)."""
    return torch.cat([values, values]) if pairs else values


def normalized(norm: nn.Module, embedded: Tensor, pairs: bool = False) -> Tensor:
    """What a norm makes of (B, N, h', w'), of which B may be one process's part of a batch.

    Both of a pair are normalized as one channel: the norm is given (B, N/2, 2h', w').
    """
    if pairs:
        first, second = embedded.chunk(2, 1)
        return torch.cat(normalized(norm, torch.cat([first, second], 2)).chunk(2, 2), 1)
    if processes.count() == 1 or type(norm) is not nn.BatchNorm2d or not norm.training or embedded.is_meta:
        out: Tensor = norm(embedded)
        return out
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    mean = processes.averaged(embedded.mean((0, 2, 3)))
    centered = embedded - mean[:, None, None]
    variance = processes.averaged(centered.square().mean((0, 2, 3)))
    _remember(norm, mean, variance, embedded[:, 0].numel())
    scale = norm.weight * (variance + norm.eps).rsqrt()
    return centered * scale[:, None, None] + norm.bias[:, None, None]


@torch.no_grad()
def _remember(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, windows: int) -> None:
    """Keep the moments of a batch, of which so many windows are this process's, for when there is none."""
    total = windows * processes.count()
    norm.running_mean.lerp_(mean, norm.momentum)  # type: ignore[union-attr, arg-type]
    norm.running_var.lerp_(variance * (total / (total - 1)), norm.momentum)  # type: ignore[union-attr, arg-type]


def _of_batch(norm: nn.BatchNorm2d, embedded: Tensor, pairs: bool) -> tuple[Tensor, Tensor]:
    """Mean and variance of each atom or pair, (N,) or (N/2,) each, over (B, N, h', w'); they are remembered."""
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    if pairs:  # as if they were twice as many windows of half the atoms
        embedded = embedded.permute(0, 2, 3, 1).reshape(-1, norm.num_features, 1, 1)
    if processes.count() > 1:
        variance, own = torch.var_mean(embedded, (0, 2, 3), correction=0)
        mean = processes.averaged(own)
        variance = processes.averaged(variance + (own - mean).square())
        _remember(norm, mean, variance, embedded[:, 0].numel())
        return mean, variance
    return torch.batch_norm_update_stats(embedded, norm.running_mean, norm.running_var, norm.momentum)  # type: ignore[arg-type]


def _of_few(norm: nn.BatchNorm2d, embedded: Sparse, pairs: bool) -> tuple[Tensor, Tensor]:
    """The same of an embedding without zeros, which can be differentiated."""
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    values, atoms = embedded.values.flatten(0, 2), embedded.atoms.flatten(0, 2)
    windows = len(values) * (2 if pairs else 1)
    mean, variance = _Moments.apply(values, atoms, norm.num_features, windows)
    _remember(norm, mean, variance, windows)
    return mean, variance


class _Moments(torch.autograd.Function):
    """Mean and variance of each channel, (N,) each, over so many windows, in most of which it is 0: see `Sparse`.

    As the deviations from a mean add up to nothing, the variance has no gradient by way of the mean.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, channels: int, windows: int) -> tuple[Tensor, Tensor]:
        sums, _, counts = deviations(values, atoms, values.new_zeros(channels))
        mean = processes.averaged(sums / windows)
        squares = deviations(values, atoms, mean)[1]
        # each window where an atom is not near deviates by the mean
        variance = processes.averaged((squares + (windows - counts) * mean.square()) / windows)
        ctx.save_for_backward(values, atoms, mean)
        ctx.windows = windows
        return mean, variance

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        values, atoms, mean = ctx.saved_tensors
        own, spread = processes.averaged(torch.stack([of_mean, of_variance])) / ctx.windows
        return scaled(values, atoms, 2 * spread, own - 2 * spread * mean), None, None, None


class _Normalized(torch.autograd.Function):
    """Norm by the batch's own mean and variance, then projection, of rows (n, N), with one gradient as large as they.

    With s = γ/√(variance + ε), W' = W·s, and b' = b + W(β - mean·s), y = W'a + b'. Of the gradient G of y, W' has GᵀA
    and b' has ΣG, from which those of W, b, γ, β, mean and variance follow; a row has GW', and its part in mean and
    variance, which is a constant plus a multiple of a. Where atoms are in pairs, both have one mean and variance.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        pairs: bool,
    ) -> Tensor:
        ctx.pairs = pairs
        inverse = (variance + eps).rsqrt()
        scale = gamma * inverse
        ctx.save_for_backward(rows, gamma, weight, mean, inverse, scale, shift := beta - mean * scale)
        return F.linear(rows, weight * scale, bias + weight @ shift)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, gamma, weight, mean, inverse, scale, shift = ctx.saved_tensors
        of_product, of_bias = grad.T @ rows, grad.sum(0)
        of_shift = weight.T @ of_bias
        of_scale = (of_product * weight).sum(0) - mean * of_shift
        of_weight = of_product * scale + torch.outer(of_bias, shift)
        # mean and variance are those of all processes' rows, which all have a part in them
        everywhere = processes.summed(torch.stack([of_scale, of_shift]))
        if ctx.pairs:
            everywhere = everywhere + exchanged(everywhere, 1)
        all_scale, all_shift = everywhere
        total = len(rows) * processes.count() * (2 if ctx.pairs else 1)
        slope = -all_scale * gamma * inverse**3 / total
        constant = -scale * all_shift / total - slope * mean
        of_rows = torch.addcmul(constant, slope, rows).addmm_(grad, weight * scale)
        return of_rows, of_scale * inverse, of_shift, of_weight, of_bias, None, None, None, None
