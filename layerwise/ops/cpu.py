"""The embedding on a CPU: matrix products over rows of patches, and one compiled pass that selects, masks and pools.

The (positions x atoms) matrices exist for a few images at a time only. What is kept for the backward pass is the
patches and the gates, one byte each. Rows are patches with a 1 appended, so that an affine map is one product.
"""

from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from layerwise.patches import extract_patches

CHUNK_NUMBERS = 1 << 21  # entries of a chunk's score matrix: 8 MiB of float32, so that it stays in the cache


@njit(cache=True, fastmath={"reassoc", "nsz", "nnan", "contract"})
def _statistics(row):  # type: ignore[no-untyped-def]
    """Least, greatest, mean and standard deviation of a row, in one vectorised pass."""
    low = high = row[0]
    total = squares = np.float32(0)
    for value in row:
        low = min(low, value)
        high = max(high, value)
        total += value
        squares += value * value
    mean = total / np.float32(len(row))
    return low, high, mean, np.sqrt(max(squares / np.float32(len(row)) - mean * mean, np.float32(0)))


@njit(cache=True)
def _count(row, threshold):  # type: ignore[no-untyped-def]
    """How many values are at most `threshold`."""
    count = np.int32(0)
    for j in range(row.shape[0]):
        count = np.int32(count + np.int32(row[j] <= threshold))
    return count


@njit(cache=True)
def _select(row, k, quantile):  # type: ignore[no-untyped-def]
    """Find what separates the k lowest values of a row from the others, without sorting it.

    Keeps a bracket count(low) < k <= count(high) and narrows it: first where a normal distribution has its k/N
    quantile, then by interpolating the counts, every third time by halving, which bounds the number of steps.

    Returns:
        (t, room). Room -1: the values at most t are k exactly. Otherwise the values below t are fewer than k, and of
        those equal to t the first `room` belong to the k lowest.
    """
    n = np.int32(row.shape[0])
    low, high, mean, deviation = _statistics(row)
    if k == n:
        return high, np.int32(-1)
    low_count, high_count = _count(row, low), n
    if low_count == k:
        return low, np.int32(-1)
    if low_count > k:
        return low, k
    middle = mean + quantile * deviation
    for step in range(600):  # enough to halve any two numbers down to neighbors
        if not (low < middle < high):
            middle = low + (high - low) * np.float32(0.5)
            if not (low < middle < high):  # no number lies between: all that is left is equal to `high`
                break
        count = _count(row, middle)
        if count == k:
            return middle, np.int32(-1)
        if count < k:
            low, low_count = middle, count
        else:
            high, high_count = middle, count
        share = np.float32(0.5)
        if step % 3 < 2:
            share = np.float32(k - low_count) / np.float32(high_count - low_count)
        middle = low + (high - low) * share
    return high, np.int32(k - low_count)


@njit(cache=True)
def _gate(row, k, quantile, gate):  # type: ignore[no-untyped-def]
    """Write 1 to `gate` where the value is among the k lowest of the row, else 0."""
    threshold, room = _select(row, k, quantile)
    if room < 0:
        for j in range(row.shape[0]):
            gate[j] = row[j] <= threshold
    else:
        for j in range(row.shape[0]):
            gate[j] = row[j] < threshold
        for j in range(row.shape[0]):
            if row[j] == threshold and room > 0:
                gate[j] = 1
                room -= 1


@njit(parallel=True, cache=True)
def _gate_pool(products, atoms, k, quantile, pool, gates, out):  # type: ignore[no-untyped-def]
    """Gate, mask and pool a chunk of images.

    `products` is (b, h, w, N), scores, or (b, h, w, 2N), scores and mapped patches; without those, each counts as 1.
    Written are `gates`, (b, h, w, N) uint8, and `out`, (b, h', w', N).
    """
    images, h, w, _ = products.shape
    _, rows, columns, _ = out.shape
    for task in prange(images * rows):
        i, r = task // rows, task % rows
        top, bottom = r * pool, min(r * pool + pool, h)
        out[i, r] = 0
        for y in range(top, bottom):
            for x in range(w):
                gate = gates[i, y, x]
                _gate(products[i, y, x, :atoms], k, quantile, gate)
                pooled = out[i, r, x // pool]
                if products.shape[3] == atoms:
                    for j in range(atoms):
                        pooled[j] += np.float32(gate[j])
                else:
                    mapped = products[i, y, x, atoms:]
                    for j in range(atoms):
                        pooled[j] += mapped[j] if gate[j] else np.float32(0)
        for c in range(columns):
            area = (bottom - top) * (min(c * pool + pool, w) - c * pool)
            out[i, r, c] *= np.float32(1) / np.float32(area)


@njit(parallel=True, cache=True)
def _gate_unpool(grad, gates, pool, out):  # type: ignore[no-untyped-def]
    """The backward pass of mask and pool: (b, h', w', N) gradients to (b, h, w, N), written to `out`."""
    images, h, w, atoms = gates.shape
    for task in prange(images * h):
        i, y = task // h, task % h
        r = y // pool
        tall = min(r * pool + pool, h) - r * pool
        for x in range(w):
            c = x // pool
            scale = np.float32(1) / np.float32(tall * (min(c * pool + pool, w) - c * pool))
            gate, pooled, row = gates[i, y, x], grad[i, r, c], out[i, y, x]
            for j in range(atoms):
                row[j] = pooled[j] * scale if gate[j] else np.float32(0)


def _quantile(k: int, atoms: int) -> np.float32:
    return np.float32(NormalDist().inv_cdf(min(max(k / atoms, 1e-3), 1 - 1e-3)))


def _rows(x: Tensor, patch_size: int) -> Tensor:
    """Patches with a 1 appended, (B, h, w, P+1)."""
    patches = extract_patches(x, patch_size)
    rows = torch.ones(*patches.shape[:3], patches.shape[3] + 1)
    rows[..., :-1] = patches
    return rows


def _forward(rows: Tensor, weight: Tensor, atoms: int, k: int, pool: int) -> tuple[Tensor, Tensor]:
    """Pooled embedding (B, h', w', N) and gates (B, h, w, N) of rows (B, h, w, P+1), weight (P+1, N or 2N)."""
    b, h, w, _ = rows.shape
    out = torch.empty(b, -(-h // pool), -(-w // pool), atoms)
    gates = torch.empty(b, h, w, atoms, dtype=torch.uint8)
    weight = weight.T.contiguous().T  # the layout that matrix products are faster with
    step = max(1, min(b, CHUNK_NUMBERS // (h * w * weight.shape[1])))
    products = torch.empty(step, h, w, weight.shape[1])
    for i in range(0, b, step):
        chunk = products[: min(step, b - i)]
        torch.mm(rows[i : i + step].flatten(0, 2), weight, out=chunk.flatten(0, 2))
        _gate_pool(
            chunk.numpy(),
            atoms,
            np.int32(k),
            _quantile(k, atoms),
            pool,
            gates[i : i + step].numpy(),
            out[i : i + step].numpy(),
        )
    return out, gates


class _EmbedFull(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, scorer: Tensor, maps: Tensor, k: int, pool: int) -> Tensor:
        out, gates = _forward(rows, torch.cat([scorer, maps], 1), scorer.shape[1], k, pool)
        ctx.save_for_backward(rows, gates)
        ctx.pool = pool
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor, None, None]:
        rows, gates = ctx.saved_tensors
        grad = grads[0].contiguous()
        b, h, w, atoms = gates.shape
        step = max(1, min(b, CHUNK_NUMBERS // (h * w * atoms)))
        total = torch.zeros(atoms, rows.shape[3])
        unpooled = torch.empty(step, h, w, atoms)
        for i in range(0, b, step):
            chunk = unpooled[: min(step, b - i)]
            _gate_unpool(grad[i : i + step].numpy(), gates[i : i + step].numpy(), ctx.pool, chunk.numpy())
            total.addmm_(chunk.flatten(0, 2).T, rows[i : i + step].flatten(0, 2))
        return None, None, total.T, None, None


def embed_full(x: Tensor, scorer: Tensor, maps: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """See `layerwise.ops.embed_full`. No gradient with respect to `x`."""
    out: Tensor = _EmbedFull.apply(_rows(x.detach(), patch_size), scorer, maps, neighbors, pool)
    return out.permute(0, 3, 1, 2)


def embed_hard(x: Tensor, scorer: Tensor, patch_size: int, neighbors: int, pool: int) -> Tensor:
    """See `layerwise.ops.embed_hard`."""
    out, _ = _forward(_rows(x.detach(), patch_size), scorer, scorer.shape[1], neighbors, pool)
    return out.permute(0, 3, 1, 2)
