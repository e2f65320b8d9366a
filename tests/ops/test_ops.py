"""The gate and the embedding, against brute force and against each other."""

import itertools
import sys
import warnings
from collections.abc import Callable
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.backends import cudnn

from layerwise import ops
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.ops import convolution, cpu, extract_patches, prefilter, reference, rows, selection
from layerwise.ops.near import layout, mask_of, near_of
from tests.conftest import products_by
from tests.fake_gpu import FakeGPU, backward


def brute_force_mask(scores: Tensor, k: int) -> Tensor:
    """Sort (score, index) pairs in plain Python."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for row, marks in zip(scores.reshape(-1, scores.shape[-1]), mask.view(-1, scores.shape[-1]), strict=True):
        for _, index in sorted((value, i) for i, value in enumerate(row.tolist()))[:k]:
            marks[index] = True
    return mask


def compiled_mask(scores: Tensor, k: int) -> Tensor:
    """The gate of the compiled backend, seen through patches of one number: (rows, N) scores at 1×1 positions."""
    scorer = torch.cat([scores, torch.zeros(1, scores.shape[1])])
    _, gates = cpu.forward(torch.eye(len(scores))[:, :, None, None], scorer, None, 1, k, 1)
    return mask_of(gates, scores.shape[1]).reshape(scores.shape)


@pytest.mark.parametrize("n, k", [(1, 1), (2, 1), (7, 7), (7, 1), (33, 8), (256, 64), (1000, 999)])
@pytest.mark.parametrize("kind", ["normal", "ties", "constant", "huge", "tiny"])
def test_gate__is_the_k_nearest__lowest_index_first(n: int, k: int, kind: str, generator: torch.Generator) -> None:
    scores = torch.randn(20, n, generator=generator)
    if kind == "ties":
        scores = (scores * 2).round()
    elif kind == "constant":
        scores = torch.full_like(scores, 0.1)
    elif kind == "huge":
        scores[:, 0] = -3e37
        scores[:, -1] = 3e37
    elif kind == "tiny":
        scores = 1 + scores * 2e-7
    expected = brute_force_mask(scores, k)
    assert torch.equal(reference.nearest_mask(scores, k), expected)
    assert torch.equal(compiled_mask(scores, k), expected)
    assert expected.sum(1).eq(k).all()


def test_scorer__ranks_as_distances_do(generator: torch.Generator) -> None:
    patches = torch.randn(300, 12, generator=generator, dtype=torch.float64)
    patches = patches @ torch.randn(12, 12, generator=generator, dtype=torch.float64) + 1
    dictionary = learn_dictionary(patches.clone(), 9, generator)
    whitened = (patches - dictionary.mean) @ dictionary.whitening
    distance = torch.cdist(whitened, dictionary.atoms).square() / 2
    scores = reference.affine(patches, dictionary.scorer)
    torch.testing.assert_close(scores, distance - whitened.square().sum(1, keepdim=True) / 2)


SHAPES = list(itertools.product([(1, 3, 8, 8), (3, 2, 9, 7)], [1, 3, 7], [(1, 1), (13, 4), (13, 13)], range(1, 10)))
# long patches, many atoms, of which few are near: kept as bits, and as indices
SHAPES += [((2, 40, 9, 7), 3, (300, k), pool) for k in (75, 5) for pool in (1, 2, 3)]


@pytest.mark.parametrize("shape, size, atoms_and_k, pool", SHAPES)
def test_cpu__agrees_with_the_reference__forward_and_backward(
    shape: tuple[int, int, int, int], size: int, atoms_and_k: tuple[int, int], pool: int, generator: torch.Generator
) -> None:
    atoms, k = atoms_and_k
    # small whole numbers: distances are exact in both, so that ties are ties in both
    x = torch.randint(-3, 4, shape, generator=generator).float()
    x[0, :, :4] = 1  # a constant region
    numbers = shape[1] * size * size
    scorer = torch.randint(-3, 4, (numbers + 1, atoms), generator=generator).float()
    scorer[:, -1] = scorer[:, 0]  # two equal atoms
    maps = torch.randn(numbers + 1, atoms, generator=generator)

    def run(backend: ModuleType, dtype: torch.dtype) -> list[Tensor]:
        out, gates = backend.forward(x.to(dtype), scorer.to(dtype), maps.to(dtype), size, k, pool)
        grad = torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape)
        hard, _ = backend.forward(x.to(dtype), scorer.to(dtype), None, size, k, pool)
        known, _ = backend.forward(x.to(dtype), scorer.to(dtype), maps.to(dtype), size, k, pool, gates)
        counted, _ = backend.forward(x.to(dtype), scorer.to(dtype), None, size, k, pool, gates)
        assert torch.equal(known, out) and torch.equal(counted, hard)
        return [out, backend.backward(x.to(dtype), grad, gates, size, pool), hard, gates]

    *ours, gates = run(cpu, torch.float32)
    *theirs, expected_gates = run(reference, torch.float64)
    assert torch.equal(gates, expected_gates)
    for name, a, b in zip(("out", "gradient", "hard"), ours, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4, rtol=1e-4, msg=f"{name} differs")


@pytest.mark.parametrize("shape, size, pool", [((3, 2, 9, 7), 3, 1), ((3, 2, 9, 7), 1, 2), ((2, 40, 9, 7), 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_convolve__is_a_convolution_a_relu_and_an_average(
    shape: tuple[int, int, int, int], size: int, pool: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    x = torch.randn(shape, generator=generator, dtype=dtype)
    maps = torch.randn(shape[1] * size * size + 1, 13, generator=generator, dtype=dtype).requires_grad_()
    kernels = maps[:-1].T.reshape(13, size, size, shape[1]).permute(0, 3, 1, 2)
    expected = torch.nn.functional.avg_pool2d(
        torch.nn.functional.conv2d(x, kernels, maps[-1]).relu(), pool, ceil_mode=True
    )
    out = ops.convolve(x, maps, size, pool)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)
    grad = torch.randn(out.shape, generator=generator, dtype=dtype)
    (ours,), (theirs,) = (torch.autograd.grad(y, maps, grad, retain_graph=True) for y in (out, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
    other = convolution.convolve(x, maps, size, pool)  # which a GPU has
    torch.testing.assert_close(out, other, atol=1e-4, rtol=1e-4)
    (theirs,) = torch.autograd.grad(other, maps, grad)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
def test_convolve__on_a_gpu__is_torch_s_own__the_same_bits_twice__and_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, conv = [], cudnn.conv  # type: ignore[attr-defined]

    class Noted(FakeGPU):  # type: ignore[no-untyped-call]
        """Notes convolutions, and how cuDNN is set in each."""

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function in (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default):
                seen.append((function.name(), cudnn.deterministic, conv.fp32_precision))
            return super().__torch_dispatch__(function, types, args, kwargs)

    before = cudnn.deterministic, conv.fp32_precision
    for precision in ("highest", "high"):
        with Noted(), ops.multiplied_with(precision):
            x, maps = (torch.randn(shape, device="cuda") for shape in ((3, 2, 9, 7), (19, 13)))
            out = ops.convolve(x, maps.requires_grad_(), 3, 2)
            assert out.is_cuda and out.shape == (3, 13, 4, 3)
            backward(out.sum())
            assert maps.grad is not None and maps.grad.is_cuda and maps.grad.shape == (19, 13)
    names = ["aten::convolution", "aten::convolution_backward"]
    assert seen == [(name, True, precision) for precision in ("ieee", "tf32") for name in names]
    assert (cudnn.deterministic, conv.fp32_precision) == before


@pytest.mark.parametrize(
    "atoms, k, size, dtype",
    [(1, 1, 1, torch.uint8), (256, 64, 32, torch.uint8), (256, 17, 32, torch.uint8), (256, 15, 15, torch.int16)]
    + [
        (9, 1, 2, torch.uint8),
        (512, 16, 16, torch.int16),
        (65536, 16, 16, torch.int32),
        (40000, 1250, 5000, torch.uint8),
    ],
)
def test_near__is_kept_as_bits_or_as_indices_whichever_is_smaller(
    atoms: int, k: int, size: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    assert layout(atoms, k) == (size, dtype)
    mask = reference.nearest_mask(torch.rand(3, atoms, generator=generator), k)
    near = near_of(mask, k)
    assert near.dtype == dtype and near.shape == (3, size)
    assert torch.equal(mask_of(near, atoms), mask)
    if dtype == torch.uint8:
        assert sum(int(byte).bit_count() for byte in near.flatten()) == 3 * k
        assert bool(near[0, 0] & 1) == bool(mask[0, 0])
    else:
        assert near[0].tolist() == mask[0].nonzero().flatten().tolist()


def test_embed__where_it_is_known_what_is_near__does_not_ask_again(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 7, 6, generator=generator)
    scorer, maps = torch.randn(2, 19, 40, generator=generator)
    mask = torch.rand(2, 5, 4, 40, generator=generator).argsort(-1) < 4  # any four
    patches = extract_patches(x, 3)
    expected = reference.average_pool((mask * reference.affine(patches, maps)).permute(0, 3, 1, 2), 2)
    for dtype in (torch.float32, torch.float64):
        own = maps.to(dtype).requires_grad_()
        out = ops.embed(x.to(dtype), scorer.to(dtype), own, 3, 4, 2, near_of(mask, 4))
        torch.testing.assert_close(out.float(), expected, atol=1e-5, rtol=1e-5)
        (gradient,) = torch.autograd.grad(out.square().sum() / 2, own)
        spread = expected.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :5, :4].permute(0, 2, 3, 1)
        sizes = torch.tensor([2.0, 2, 1])[:, None].repeat_interleave(2, 0)[:5] * 2
        shares = mask * spread / sizes[..., None]
        by_hand = torch.einsum("bhwp,bhwn->pn", patches, shares)
        torch.testing.assert_close(gradient[:-1].float(), by_hand, atol=1e-4, rtol=1e-4)


def test_backward__is_the_same_bits_for_bits_and_indices(generator: torch.Generator) -> None:
    x, grad = torch.randn(5, 3, 9, 9, generator=generator), torch.randn(5, 200, 4, 4, generator=generator)
    mask = torch.rand(5, 7, 7, 200, generator=generator).argsort(-1) < 9
    indices = near_of(mask, 9)
    bits = near_of(mask, 200)
    assert indices.dtype == torch.int16 and bits.dtype == torch.uint8
    assert torch.equal(cpu.backward(x, grad, indices, 3, 2), cpu.backward(x, grad, bits, 3, 2))


def test_reference__its_backward_pass_is_what_torch_differentiates(generator: torch.Generator) -> None:
    x = torch.randn(2, 2, 7, 6, generator=generator, dtype=torch.float64)
    scorer, maps = torch.randn(2, 19, 10, generator=generator, dtype=torch.float64)
    out = reference.embed(x, scorer, maps.requires_grad_(), 3, 4, 2)
    grad = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    _, gates = reference.forward(x, scorer, maps, 3, 4, 2)
    (expected,) = torch.autograd.grad(out, maps, grad)
    torch.testing.assert_close(reference.backward(x, grad, gates, 3, 2), expected)


def test_embed__is_the_same_in_chunks(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 2, 8, 8, generator=generator)
    scorer, maps = torch.randn(2, 19, 10, generator=generator)
    whole, gates = cpu.forward(x, scorer, maps, 3, 4, 2)
    gradient = cpu.backward(x, whole, gates, 3, 2)
    monkeypatch.setattr(rows, "NUMBERS", 1500)
    torch.testing.assert_close(cpu.forward(x, scorer, maps, 3, 4, 2)[0], whole)
    torch.testing.assert_close(cpu.backward(x, whole, gates, 3, 2), gradient)


@pytest.mark.parametrize("patch_size, numbers, sizes", [(3, 960, [4, 2]), (3, 959, [2, 2, 2]), (2, 1, [2, 2, 2, 1])])
def test_near__of_images_whose_scores_are_too_many_is_found_by_rows_of_positions(
    patch_size: int, numbers: int, sizes: list[int], generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 40, 8, 8, generator=generator)
    scorer, maps = torch.randn(2, 40 * patch_size**2 + 1, 40, generator=generator)
    run: dict[str, Callable[[], Tensor]] = {
        "indices": lambda: cpu.near(x, scorer, patch_size, 1),
        "bits": lambda: cpu.near(x, scorer, patch_size, 4),
        "averages": lambda: cpu.convolve(x, maps, patch_size, 2)[0],
        "signs": lambda: cpu.convolve(x, maps, patch_size, 2)[1],
    }
    whole = {name: task() for name, task in run.items()}
    monkeypatch.setattr(rows, "NUMBERS", 1)
    monkeypatch.setattr(rows, "MOST", numbers)
    parts = [part for part, _ in rows.cut_rows(x, patch_size, 368, 40, 2)]
    assert [part.stop - part.start for _, part in parts] == 2 * sizes
    for halved in (False, True):
        monkeypatch.setattr(prefilter, "pays", lambda patch, halved=halved: halved)
        for name, task in run.items():
            torch.testing.assert_close(task(), whole[name])


def test_reference__is_the_same_a_few_images_at_a_time(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(5, 2, 8, 8, generator=generator)
    scorer, maps = torch.randn(2, 19, 10, generator=generator)

    def run() -> list[Tensor]:
        out, gates = reference.forward(x, scorer, maps, 3, 4, 2)
        known, _ = reference.forward(x, scorer, maps, 3, 4, 2, gates)
        own = [reference.near(x, scorer, 3, 4), *reference.convolve(x, maps, 3, 2)]
        return [out, gates, known, reference.backward(x, out, gates, 3, 2), *own]

    whole = run()
    monkeypatch.setattr(reference, "TOGETHER", 2 * 36 * 10)
    for ours, theirs in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operator__is_a_well_formed_one(dtype: torch.dtype, generator: torch.Generator) -> None:
    """PyTorch's own checks: schema, shape function against the real one, autograd, tracing."""
    x = torch.randn(2, 2, 7, 6, generator=generator, dtype=dtype)
    scorer, maps = torch.randn(2, 19, 10, generator=generator, dtype=dtype)
    passed = torch.library.opcheck(torch.ops.layerwise.embed, (x, scorer, maps.requires_grad_(), None, 3, 4, 2))
    assert set(passed.values()) == {"SUCCESS"}
    for others in ((scorer, None), (None, maps)):
        passed = torch.library.opcheck(torch.ops.layerwise.embed, (x, *others, None, 3, 4, 2))
        assert set(passed.values()) == {"SUCCESS"}
    _, near = torch.ops.layerwise.embed(x, scorer, maps, None, 3, 4, 2)
    passed = torch.library.opcheck(torch.ops.layerwise.embed, (x, scorer, maps, near, 3, 4, 2))
    assert set(passed.values()) == {"SUCCESS"}


def test_embed__without_numba_is_the_reference__and_says_so_once(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, scorer = torch.randn(1, 1, 5, 5, generator=generator), torch.randn(5, 3, generator=generator)
    monkeypatch.setitem(sys.modules, "numba", None)  # an import of it fails
    for name in ("cpu", "clusters", "rows", "selection", "windows"):
        monkeypatch.delitem(sys.modules, f"layerwise.ops.{name}")
    monkeypatch.delattr(ops, "cpu")
    ops._backend.cache_clear()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            first, second = (ops.embed(x, scorer, None, 2, 2, 1) for _ in range(2))
    finally:
        ops._backend.cache_clear()
    assert [str(warning.message).split(" (")[0] for warning in told] == [
        "embedding in plain torch, several times slower: Numba cannot be used"
    ]
    assert torch.equal(first, reference.embed(x, scorer, None, 2, 2, 1)) and torch.equal(first, second)


def test_embed_full__is_the_block_diagonal_linear_map_on_phi_full(generator: torch.Generator) -> None:
    """The definition: Phi_full = (g_1 z, ..., g_N z) in R^(N P), then a linear map with one block an atom."""
    n, k, size = 6, 2, 3
    x = torch.randn(2, 2, 5, 5, generator=generator, dtype=torch.float64)
    z = extract_patches(x, size)  # whitening is a matter of the maps; here it is the identity
    atoms, u = torch.randn(2, n, z.shape[-1], generator=generator, dtype=torch.float64)
    b = torch.randn(n, generator=generator, dtype=torch.float64)
    gate = brute_force_mask(torch.cdist(z.flatten(0, 2), atoms), k).reshape(*z.shape[:3], n).double()
    phi_full = (gate[..., None] * z[..., None, :]).flatten(3)  # (B, h, w, N P)
    blocks: Tensor = torch.block_diag(*u)  # type: ignore[no-untyped-call]
    expected = phi_full @ blocks.T + gate * b

    scorer = torch.cat([-atoms.T, atoms.square().sum(1)[None] / 2])
    maps = torch.cat([u.T, b[None]])
    torch.testing.assert_close(ops.embed(x, scorer, maps, size, k, 1), expected.permute(0, 3, 1, 2))
    fast = ops.embed(x.float(), scorer.float(), maps.float(), size, k, 1)
    torch.testing.assert_close(fast.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_embed_full__gradcheck(generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 5, 5, generator=generator, dtype=torch.float64)
    scorer, maps = torch.randn(2, 10, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: ops.embed(x, scorer, m, 3, 2, 2), maps.requires_grad_())


def test_average_pool__averages_what_a_border_window_covers() -> None:
    pooled = reference.average_pool(torch.arange(9.0).reshape(1, 1, 3, 3), 2)
    assert pooled.flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_backend__is_the_fast_one_or_says_so() -> None:
    assert ops.backend(torch.zeros(1)) is cpu
    ops._backend.cache_clear()  # it warns once
    with pytest.warns(UserWarning, match=r"torch.float64 on cpu has no backend of its own"):
        assert ops.backend(torch.zeros(1, dtype=torch.float64)) is reference


@pytest.mark.parametrize("backend", [cpu, reference])
def test_clusters__are_found_and_added_up_as_by_hand(backend: ModuleType) -> None:
    scores = torch.tensor([[3.0, -1.0, -1.0], [-2.0, 0.0, 5.0], [0.5, 0.25, -0.0]])
    index, least = backend.lowest(scores)
    assert index.tolist() == [1, 0, 2] and least.tolist() == [-1, -2, 0]
    points = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0], [0.5, 0.5]])
    sums, sizes = backend.add_up(points, torch.tensor([2, 0, 2, 0]), 4)
    assert sums.tolist() == [[10.5, 20.5], [0, 0], [101, 202], [0, 0]]
    assert sizes.tolist() == [2, 0, 2, 0] and sizes.dtype == torch.int64


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])
def test_lowest__is_the_first_of_equals__wherever_it_stands(columns: int, generator: torch.Generator) -> None:
    scores = (torch.randn(300, columns, generator=generator) * 2).round()  # many are equal
    index, least = cpu.lowest(scores)
    for row, i, value in zip(scores.tolist(), index.tolist(), least.tolist(), strict=True):
        assert value == min(row) and i == row.index(value)


@pytest.mark.parametrize(
    "kind, k, mean, most",
    [("normal", 256, 7, 16), ("normal", 5, 6, 16), ("exponential", 256, 10, 24), ("outlier", 256, 40, 64)],
)
def test_select__takes_few_passes(
    kind: str, k: int, mean: float, most: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, passes, count = torch.randn(40, 1024, generator=generator), [0], selection._count
    if kind == "exponential":
        rows = rows.exp()
    elif kind == "outlier":
        rows[:, 7] = 1e6

    def counted(*given: Any) -> Any:
        passes[-1] += 1
        return count(*given)

    monkeypatch.setattr(selection, "_count", counted)
    search = getattr(selection.select, "py_func", selection.select)  # the function that was compiled
    for row in rows:
        threshold, room = search(row.numpy(), np.int32(k), np.float32(NormalDist().inv_cdf(k / 1024)))
        assert room == -1 and int((row <= float(threshold)).sum()) == k
        passes.append(0)
    assert sum(passes) / 40 < mean and max(passes) <= most


@pytest.mark.parametrize("way", ["medium", "bf16", "tf32"])
def test_near__is_the_same__whatever_precision_is_set(
    way: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, scorer = torch.randn(8, 3, 24, 24, generator=generator), torch.randn(76, 256, generator=generator)
    monkeypatch.setattr("layerwise.ops.prefilter.pays", lambda patch: False)
    atoms, square = scorer[:75].T, scorer[:75] @ scorer[:75].T
    dictionary, patches = PatchDictionary(torch.zeros(75), torch.eye(75), atoms), extract_patches(x, 5)
    tried: dict[str, Callable[[], Tensor]] = {
        "compiled": lambda: ops.near(x, scorer, 5, 64),
        "plain": lambda: reference.near(x, scorer, 5, 64),
        "distance": lambda: dictionary.distance(patches),
        "scorer": lambda: PatchDictionary(torch.zeros(75), square, atoms).scorer,
    }
    expected = {name: find() for name, find in tried.items()}
    with products_by(way):
        assert [name for name, find in tried.items() if not torch.equal(find(), expected[name])] == []


def test_embed__of_no_image__has_no_gradient() -> None:
    maps = torch.randn(10, 4, requires_grad=True)
    out = ops.embed(torch.zeros(0, 1, 5, 5), torch.zeros(10, 4), maps, 3, 2, 1)
    (gradient,) = torch.autograd.grad(out.sum(), maps)
    assert out.shape == (0, 4, 3, 3) and gradient.shape == (10, 4) and not gradient.any()
