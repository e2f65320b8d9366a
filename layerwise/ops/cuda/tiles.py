"""What the kernels share: where patches and windows lie, and products of float32 accuracy on the matrix units.

Images are (B, H, W, C) in memory, but where it says otherwise. For shapes see `layerwise.ops`.
"""
# mypy: disable-error-code="import-untyped, no-untyped-call, no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

STEP = tl.constexpr(16)  # patch numbers a step of a product; the maps' are padded to a multiple
PROGRAMS_A_PROCESSOR = 2  # programs that a launch should have for each multiprocessor


@triton.jit
def tf32(a):
    """Round to the 11 significant bits that the matrix units take."""
    return ((a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def dot(a, b, total, EXACT: tl.constexpr):
    """Add a @ b to `total`. EXACT: float32-accurate, three products of high and low parts; low by low is negligible.

    Triton's own "tf32x3" does the same with a second accumulator, for which there are not registers enough.
    """
    wide_a, wide_b = tf32(a), tf32(b)
    if EXACT:
        total = tl.dot(a - wide_a, wide_b, total, input_precision="tf32")
        total = tl.dot(wide_a, b - wide_b, total, input_precision="tf32")
    return tl.dot(wide_a, wide_b, total, input_precision="tf32")


@triton.jit
def patch_offset(p, W, S: tl.constexpr, C: tl.constexpr):
    """Where number p of a patch lies, counted from its first: a patch is S runs of S*C numbers, a row of x apart."""
    return p // (S * C) * (W * C) + p % (S * C)


@triton.jit
def patch_numbers(patch, p, exists, W, S: tl.constexpr, C: tl.constexpr):
    """Numbers p of the patches that begin at `patch`, with a 1 appended for the offset; 0 where none exists."""
    P: tl.constexpr = S * S * C
    value = tl.load(patch + patch_offset(p, W, S, C), mask=exists & (p < P), other=0.0)
    return tl.where(exists & (p == P), 1.0, value)


@triton.jit
def place(position, h, w):
    """Image, row and column of a position."""
    return position // (h * w), position // w % h, position % w


@triton.jit
def window_place(window, h, w, POOL: tl.constexpr):
    """Image, first row and first column of a window, and one over how many positions it covers."""
    tall, wide = tl.cdiv(h, POOL), tl.cdiv(w, POOL)
    row, column = window // wide % tall * POOL, window % wide * POOL
    area = tl.minimum(POOL, h - row) * tl.minimum(POOL, w - column)
    return window // (tall * wide), row, column, 1.0 / area.to(tl.float32)


@triton.jit
def window_at(image, row, column, h, w, POOL: tl.constexpr):
    """The window of a position, and one over how many positions it covers."""
    window = (image * tl.cdiv(h, POOL) + row // POOL) * tl.cdiv(w, POOL) + column // POOL
    _, _, _, share = window_place(window, h, w, POOL)
    return window, share


@triton.jit
def product(
    patches, inside, weight, first, W, N, S: tl.constexpr, C: tl.constexpr,
    ATOMS: tl.constexpr, EXACT: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """Affine map of patches for atoms `first` and on, (rows, ATOMS); FILL where there is no such atom.

    `weight` is as `rows` makes it: the matrix units read float32 with the summed dimension contiguous.
    """
    P: tl.constexpr = S * S * C
    DEPTH: tl.constexpr = (P // STEP + 1) * STEP
    atom = first + tl.arange(0, ATOMS)
    total = tl.zeros((patches.shape[0], ATOMS), tl.float32)
    for start in range(0, P, STEP):
        p = start + tl.arange(0, STEP)
        a = tl.load(
            patches[:, None] + patch_offset(p, W, S, C)[None, :], mask=inside[:, None] & (p < P)[None, :], other=0.0
        )
        b = tl.load(weight + p[:, None] + atom[None, :] * DEPTH, mask=(atom < N)[None, :], other=0.0)
        total = dot(a, b, total, EXACT)
    return total + tl.load(weight + P + atom * DEPTH, mask=atom < N, other=FILL)[None, :]


def rows(weight: Tensor) -> Tensor:
    """An affine map (P+1, N) as (N, D), zero-padded to a D that is a multiple of STEP."""
    padded = weight.new_zeros(weight.shape[1], triton.cdiv(weight.shape[0], STEP.value) * STEP.value)
    padded[:, : weight.shape[0]] = weight.T
    return padded


def block(size: int, most: int) -> int:
    """The power of two that covers `size`, from 16, the least that a product takes, to `most`."""
    return min(max(16, int(triton.next_power_of_2(size))), most)


def splits(x: Tensor, programs: int, most: int) -> int:
    """Into how many parts a sum is split, 1 to `most`, so that so many programs times as many use a whole GPU."""
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    return max(1, min(PROGRAMS_A_PROCESSOR * processors // programs, most))
