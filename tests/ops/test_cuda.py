"""The Triton kernels against the reference in float64: on a GPU, or where there is none in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from layerwise.ops import cuda, reference  # noqa: E402
from layerwise.ops.near import mask_of  # noqa: E402

# numbers may overflow in a guess of the search, which numpy, below the interpreter, tells of
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def gates_of_scores(scores: Tensor, k: int) -> Tensor:
    """The gates where scores are given: (rows, N), each row the patch of an image of one pixel."""
    rows = len(scores)
    x = torch.eye(rows, device=DEVICE).reshape(rows, rows, 1, 1)
    scorer = torch.cat([scores, torch.zeros(1, scores.shape[1])]).to(DEVICE)
    _, gates = cuda.forward(x, scorer, None, 1, k, 1)
    return gates.reshape(scores.shape).bool().cpu()


def by_position(gates: Tensor, h: int, w: int, pool: int) -> Tensor:
    """Gates as the kernels keep them, (B, h', w', bytes, N), as a mask (B, h, w, N); nothing is set outside."""
    b, tall, wide, _, n = gates.shape
    bits = gates[:, :, :, :, None] >> torch.arange(8, dtype=torch.uint8)[:, None] & 1
    windows = bits.flatten(3, 4)[:, :, :, : pool * pool].view(b, tall, wide, pool, pool, n)
    mask = windows.transpose(2, 3).reshape(b, tall * pool, wide * pool, n).bool()
    assert mask.sum() == mask[:, :h, :w].sum() == bits.sum()
    return mask[:, :h, :w]


def agree(shape: tuple[int, int, int, int], size: int, atoms: int, k: int, pool: int) -> bool:
    """Compare embedding, gates and gradient; fails where they differ.

    Pixels have 13 bits, more than one product of the matrix units takes; scorers have 3, so that scores are exact in
    float32, many of them are equal, and the gates are to be the same.
    """
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 1024).round().clamp(-4096, 4096) / 1024
    x[0, :, :3] = 0.5
    scorer, maps = torch.randn(2, size * size * shape[1] + 1, atoms, generator=generator)
    scorer = (scorer * 2).round().clamp(-4, 4)
    scorer[:, -1] = scorer[:, 0]
    x_there, scorer_there, maps_there = (a.to(DEVICE) for a in (x, scorer, maps))
    expected, expected_gates = reference.forward(x.double(), scorer.double(), maps.double(), size, k, pool)
    out, gates = cuda.forward(x_there, scorer_there, maps_there, size, k, pool)
    h, w = x.shape[2] - size + 1, x.shape[3] - size + 1
    assert torch.equal(by_position(gates.cpu(), h, w, pool), mask_of(expected_gates, scorer.shape[1]))
    torch.testing.assert_close(out.cpu().double(), expected, atol=1e-4, rtol=1e-4)

    hard, hard_gates = cuda.forward(x_there, scorer_there, None, size, k, pool)
    expected_hard, _ = reference.forward(x.double(), scorer.double(), None, size, k, pool)
    assert torch.equal(hard_gates, gates)
    torch.testing.assert_close(hard.cpu().double(), expected_hard, atol=1e-6, rtol=1e-6)

    grad = torch.randn(out.shape, generator=generator)
    gradient = cuda.backward(x_there, grad.to(DEVICE), gates, size, pool)
    expected_gradient = reference.backward(x.double(), grad.double(), expected_gates, size, pool)
    torch.testing.assert_close(gradient.cpu().double(), expected_gradient, atol=1e-4, rtol=1e-4)
    return True


@pytest.mark.parametrize("shape, size", [((1, 3, 6, 6), 1), ((2, 2, 7, 5), 3)])
@pytest.mark.parametrize("atoms, k, pool", [(1, 1, 1), (1, 1, 3), (13, 13, 2), *((13, 4, p) for p in (1, 2, 3, 4, 5))])
def test_kernels__agree(shape: tuple[int, int, int, int], size: int, atoms: int, k: int, pool: int) -> None:
    assert agree(shape, size, atoms, k, pool)


@pytest.mark.parametrize("atoms, k", [(65, 1), (130, 129), (300, 75), (600, 600)])
def test_kernels__agree__in_each_tile_of_the_table(atoms: int, k: int) -> None:
    assert agree((1, 1, 6, 5), 2, atoms, k, 2)


def test_kernels__agree__when_patches_are_whole_images() -> None:
    assert agree((5, 4, 7, 7), 7, 20, 6, 3)


def test_kernels__agree__when_scores_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ATOMS_ON_CHIP", 16)
    monkeypatch.setattr(cuda, "ATOMS_A_BLOCK", 16)
    assert agree((1, 2, 6, 5), 3, 40, 13, 3)


@pytest.mark.parametrize("programs", [0, 100])
def test_kernels__agree__however_the_work_is_split(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PROGRAMS_A_PROCESSOR", programs)
    monkeypatch.setattr(cuda, "EMBED_TILE", (16, 16))
    monkeypatch.setattr(cuda, "GRADIENT_TILE", (16, 16, 16))
    assert agree((2, 2, 7, 6), 3, 20, 9, 3)


@pytest.mark.parametrize("n, k", [(1, 1), (7, 7), (33, 1), (256, 64), (1000, 999)])
@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "zero", "huge", "tiny"])
def test_gate__is_the_k_nearest__lowest_index_first(n: int, k: int, kind: str, generator: torch.Generator) -> None:
    scores = torch.randn(15, n, generator=generator)
    if kind == "ties":
        scores = (scores * 2).round()
    elif kind == "constant":
        scores = torch.full_like(scores, 0.1)
    elif kind == "zero":
        scores = torch.relu(scores)
    elif kind == "huge":
        scores[:, 0] = -3e37
        scores[:, -1] = 3e37
    elif kind == "tiny":
        scores = 1 + scores * 2e-7
    expected = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.argsort(dim=1, stable=True)[:, :k], True)
    assert torch.equal(gates_of_scores(scores, k), expected)


@pytest.mark.parametrize("k", [1, 20])
def test_gate__breaks_ties_across_blocks(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "ATOMS_ON_CHIP", 16)
    monkeypatch.setattr(cuda, "ATOMS_A_BLOCK", 16)
    assert gates_of_scores(torch.zeros(3, 50), k).tolist() == [[True] * k + [False] * (50 - k)] * 3


def test_gate__outside_the_image_is_zero() -> None:
    x, scorer = torch.ones(1, 1, 3, 3, device=DEVICE), torch.ones(2, 2, device=DEVICE)
    hard, gates = cuda.forward(x, scorer, None, 1, 1, 2)
    assert gates[0, ..., 0, 0].tolist() == [[0b1111, 0b0101], [0b0011, 0b0001]]
    assert gates[..., 1].eq(0).all()
    assert hard[0].tolist() == [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]


def test_kernels__take_any_strides(generator: torch.Generator) -> None:
    x = torch.randn(2, 6, 5, 3, generator=generator).permute(0, 3, 2, 1).to(DEVICE)
    scorer, maps = torch.randn(2, 11, 28, generator=generator).transpose(1, 2).to(DEVICE)
    grad = torch.randn(2, 1, 1, 1, generator=generator).expand(2, 11, 2, 2).to(DEVICE)
    out, gates = cuda.forward(x, scorer, maps, 3, 4, 2)
    plain, plain_gates = cuda.forward(x.contiguous(), scorer.contiguous(), maps.contiguous(), 3, 4, 2)
    assert torch.equal(out, plain)
    assert torch.equal(gates, plain_gates)
    assert torch.equal(
        cuda.backward(x, grad, gates, 3, 2), cuda.backward(x.contiguous(), grad.contiguous(), gates, 3, 2)
    )


def test_precision__rounds_maps_and_never_gates(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 7, 7, generator=generator).to(DEVICE)
    scorer, maps = torch.randn(2, 28, 40, generator=generator).to(DEVICE)
    accurate, gates = cuda.forward(x, scorer, maps, 3, 10, 1)
    gradient = cuda.backward(x, accurate, gates, 3, 1)
    torch.set_float32_matmul_precision("high")
    try:
        rounded, rounded_gates = cuda.forward(x, scorer, maps, 3, 10, 1)
        rounded_gradient = cuda.backward(x, accurate, gates, 3, 1)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(gates, rounded_gates)
    for a, b in ((accurate, rounded), (gradient, rounded_gradient)):
        assert 1e-5 < (a - b).norm() / a.norm() < 1e-3


def test_supports__says_what_is_too_large() -> None:
    x = torch.zeros(1, 3, 32, 32)
    assert cuda.supports(x, 5, 1000, 2) is None
    assert cuda.supports(x.expand(3_000_000, -1, -1, -1), 5, 10, 1) == "3000000 images of 32x32 have too many positions"
    assert "maps of patches of 5x5x3" in (cuda.supports(x, 5, 30_000_000, 2) or "")


def test_supports__up_to_what_32_bits_count() -> None:
    pixel, most = torch.zeros(1, 1, 1, 1), 2**21 - 2  # times 32*32: all that 32 bits count but for two tiles
    for images, atoms, fits in ((most, 1, True), (most + 2, 1, False)):
        x = pixel.expand(images, -1, 32, 32)
        assert [cuda.supports(x, size, atoms, 1) is None for size in (1, 32)] == [fits, fits]
        assert (cuda.supports(pixel.expand(1, images, 32, 32), 1, atoms, 1) is None) == fits
    # a window of 4×4 takes 16 bits, one of 3×3 as many, one of 2×2 takes 4: of a side of 30 these are 64, 100 and 225
    for pool, bits in ((4, 64 * 16), (3, 100 * 16), (2, 225 * 4)):
        assert cuda.supports(pixel.expand(2**31 // bits - 20, -1, 30, 30), 1, 1, pool) is None
        too_many = cuda.supports(pixel.expand(2**31 // bits + 1, -1, 30, 30), 1, 1, pool)
        assert too_many is not None and "too many positions" in too_many
