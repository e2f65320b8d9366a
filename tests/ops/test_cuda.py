"""The Triton kernels against the reference in float64: on a GPU, or where there is none in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from layerwise.experiments.gpu.kernels import disagreements  # noqa: E402
from layerwise.ops import cuda  # noqa: E402
from layerwise.ops.cuda import dense, gates, sparse, tiles  # noqa: E402
from layerwise.ops.near import layout, mask_of  # noqa: E402

# numbers may overflow in a guess of the search, which numpy, below the interpreter, tells of
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered.*:RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def gates_of_scores(scores: Tensor, k: int) -> Tensor:
    """The gates where scores are given: (rows, N), each row the patch of an image of one pixel."""
    rows = len(scores)
    x = torch.eye(rows, device=DEVICE).reshape(rows, rows, 1, 1)
    scorer = torch.cat([scores, torch.zeros(1, scores.shape[1])]).to(DEVICE)
    return mask_of(cuda.near(x, scorer, 1, k), scores.shape[1]).reshape(scores.shape).cpu()


def agree(shape: tuple[int, int, int, int], size: int, atoms: int, k: int, pool: int) -> bool:
    assert disagreements(shape, size, atoms, k, pool, torch.device(DEVICE)) == []
    return True


BITS = [(1, 1, 1), (1, 1, 3), (13, 13, 2), *((13, 4, pool) for pool in (1, 2, 3, 4, 5))]
INDICES = [(65, 4, 3), (33, 2, 1), *((17, 1, pool) for pool in (1, 2, 4, 5))]


@pytest.mark.parametrize("shape, size", [((1, 3, 6, 6), 1), ((2, 2, 7, 5), 3)])
@pytest.mark.parametrize("atoms, k, pool", BITS + INDICES)
def test_kernels__agree(shape: tuple[int, int, int, int], size: int, atoms: int, k: int, pool: int) -> None:
    assert (layout(atoms, k)[1] == torch.uint8) == ((atoms, k, pool) in BITS)
    assert agree(shape, size, atoms, k, pool)


@pytest.mark.parametrize("atoms, k", [(65, 9), (130, 129), (300, 75), (600, 600)])
def test_kernels__agree__in_each_tile_of_the_table(atoms: int, k: int) -> None:
    assert agree((1, 1, 6, 5), 2, atoms, k, 2)


@pytest.mark.parametrize("atoms, k", [(20, 6), (40, 2)])
def test_kernels__agree__when_patches_are_whole_images(atoms: int, k: int) -> None:
    assert agree((5, 4, 7, 7), 7, atoms, k, 3)


@pytest.mark.parametrize("k", [9, 2])
def test_kernels__agree__when_scores_are_computed_anew(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "ATOMS_ON_CHIP", 16)
    monkeypatch.setattr(gates, "ATOMS_A_BLOCK", 16)
    assert agree((1, 2, 5, 5), 3, 40, k, 3)


@pytest.mark.parametrize("programs", [0, 132])
@pytest.mark.parametrize("atoms, k", [(20, 9), (33, 2)])
def test_kernels__agree__however_the_work_is_split(
    atoms: int, k: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "PROGRAMS_A_PROCESSOR", programs)
    monkeypatch.setattr(dense, "EMBED_TILE", (16, 16, 4))
    monkeypatch.setattr(dense, "GRADIENT_TILE", (16, 16, 16, 4))
    monkeypatch.setattr(sparse, "EMBED_TILE", (1, 8, 4))
    monkeypatch.setattr(sparse, "GRADIENT_TILE", (16, 2, 4))
    assert agree((1, 2, 5, 6), 3, atoms, k, 3)


@pytest.mark.parametrize("n, k", [(1, 1), (7, 7), (33, 1), (256, 9), (256, 64), (1000, 16), (1000, 999)])
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


@pytest.mark.parametrize("k", [1, 3, 20])
def test_gate__breaks_ties_across_blocks(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "ATOMS_ON_CHIP", 16)
    monkeypatch.setattr(gates, "ATOMS_A_BLOCK", 16)
    assert gates_of_scores(torch.zeros(3, 50), k).tolist() == [[True] * k + [False] * (50 - k)] * 3


@pytest.mark.parametrize("n, k", [(40, 2), (40, 10)])
def test_gate__of_what_is_no_number__names_no_atom_that_is_not_there(n: int, k: int) -> None:
    torch.use_deterministic_algorithms(True)  # fills what is not initialized with the highest number
    try:
        near = cuda.near(torch.full((1, 1, 2, 3), torch.nan, device=DEVICE), torch.ones(2, n, device=DEVICE), 1, k)
    finally:
        torch.use_deterministic_algorithms(False)
    assert near.shape == (1, 2, 3, layout(n, k)[0]) and not near.any()


@pytest.mark.parametrize("k", [1, 2])
def test_kernels__average_what_a_border_window_covers(k: int) -> None:
    x, atoms = torch.ones(1, 1, 3, 3, device=DEVICE), 32 if k == 1 else 2  # kept as indices, as bits
    hard, near = cuda.forward(x, torch.ones(2, atoms, device=DEVICE), None, 1, k, 2)
    assert near.flatten(0, 2).tolist() == [[0]] * 9 if k == 1 else [[0b11]] * 9
    assert hard[0, :k].eq(1).all() and hard[0, k:].eq(0).all() and hard.shape == (1, atoms, 2, 2)


def test_kernels__take_indices_of_32_bits(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, scorer, maps = torch.randn(1, 2, 3, 4, generator=generator), *torch.randn(2, 9, 20, generator=generator)
    x, scorer, maps = (a.to(DEVICE) for a in (x, scorer, maps))
    out, near = cuda.forward(x, scorer, maps, 2, 1, 2)
    monkeypatch.setattr(gates, "layout", lambda atoms, neighbors: (neighbors, torch.int32))
    same, wide = cuda.forward(x, scorer, maps, 2, 1, 2)
    assert near.dtype == torch.int16 and wide.dtype == torch.int32 and torch.equal(near, wide.short())
    assert torch.equal(same, out) and torch.equal(cuda.backward(x, out, wide, 2, 2), cuda.backward(x, out, near, 2, 2))


@pytest.mark.parametrize("k", [4, 1])
def test_kernels__take_any_strides(k: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 6, 5, 3, generator=generator).permute(0, 3, 2, 1).to(DEVICE)
    scorer, maps = torch.randn(2, 21, 28, generator=generator).transpose(1, 2).to(DEVICE)
    grad = torch.randn(2, 1, 1, 1, generator=generator).expand(2, 21, 2, 2).to(DEVICE)
    out, near = cuda.forward(x, scorer, maps, 3, k, 2)
    plain, plain_near = cuda.forward(x.contiguous(), scorer.contiguous(), maps.contiguous(), 3, k, 2)
    assert torch.equal(out, plain)
    assert torch.equal(near, plain_near)
    transposed = near.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(cuda.forward(x, scorer, maps, 3, k, 2, transposed)[0], out)
    expected = cuda.backward(x.contiguous(), grad.contiguous(), near, 3, 2)
    assert torch.equal(cuda.backward(x, grad, transposed, 3, 2), expected)


def test_precision__rounds_the_products_of_many_maps__never_what_is_near(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 7, 7, generator=generator).to(DEVICE)
    scorer, maps = torch.randn(2, 28, 40, generator=generator).to(DEVICE)

    def computed(k: int) -> tuple[Tensor, Tensor, Tensor]:
        out, near = cuda.forward(x, scorer, maps, 3, k, 1)
        return out, cuda.backward(x, torch.ones_like(out), near, 3, 1), near

    many, few = computed(10), computed(2)
    torch.set_float32_matmul_precision("high")
    try:
        rounded, same = computed(10), computed(2)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(many[2], rounded[2])
    for a, b in zip(many[:2], rounded[:2], strict=True):
        assert 1e-5 < (a - b).norm() / a.norm() < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(few, same, strict=True))


def test_supports__says_what_is_too_large() -> None:
    x = torch.zeros(1, 3, 32, 32)
    assert cuda.supports(x, 5, 1000) is None
    assert cuda.supports(x.expand(3_000_000, -1, -1, -1), 5, 10) == "3000000 images of 32x32 have too many positions"
    assert "maps of patches of 5x5x3" in (cuda.supports(x, 5, 30_000_000) or "")


def test_supports__up_to_what_32_bits_count() -> None:
    pixel, most = torch.zeros(1, 1, 1, 1), 2**21 - 2  # times 32*32: all that 32 bits count but for two tiles
    for images, atoms, fits in ((most, 1, True), (most + 2, 1, False)):
        x = pixel.expand(images, -1, 32, 32)
        assert [cuda.supports(x, size, atoms) is None for size in (1, 32)] == [fits, fits]
        assert (cuda.supports(pixel.expand(1, images, 32, 32), 1, atoms) is None) == fits
