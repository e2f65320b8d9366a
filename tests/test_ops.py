"""The gate and the embedding, against brute force and against each other."""

import itertools
from types import ModuleType

import pytest
import torch
from torch import Tensor

from layerwise import ops
from layerwise.ops import cpu, reference
from layerwise.patches import extract_patches


def brute_force_mask(scores: Tensor, k: int) -> Tensor:
    """Sort (score, index) pairs in plain Python."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for row, marks in zip(scores.reshape(-1, scores.shape[-1]), mask.view(-1, scores.shape[-1]), strict=True):
        for _, index in sorted((value, i) for i, value in enumerate(row.tolist()))[:k]:
            marks[index] = True
    return mask


def compiled_mask(scores: Tensor, k: int) -> Tensor:
    """The gate of the compiled backend, seen through patches of one number: (rows, N) scores at 1×1 positions."""
    _, gates = cpu._forward(torch.eye(len(scores)).reshape(len(scores), 1, 1, -1), scores, scores.shape[1], k, 1)
    return gates.reshape(scores.shape).bool()


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
    from layerwise.dictionary import PatchDictionary

    patches = torch.randn(300, 12, generator=generator, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    dictionary = PatchDictionary.fit(patches, 9, kind="kmeans", epsilon=0.1, iterations=5, generator=generator)
    whitened = (patches - dictionary.mean) @ dictionary.whitening
    distance = torch.cdist(whitened, dictionary.atoms).square() / 2
    scores = reference.affine(patches, dictionary.scorer)
    torch.testing.assert_close(scores, distance - whitened.square().sum(1, keepdim=True) / 2)


SHAPES = list(itertools.product([(1, 3, 8, 8), (3, 2, 9, 7)], [1, 3, 7], [(1, 1), (13, 4), (13, 13)], [1, 2, 3, 9]))


@pytest.mark.parametrize("shape, size, atoms_and_k, pool", SHAPES)
def test_embed__agrees_between_backends__forward_and_backward(
    shape: tuple[int, int, int, int], size: int, atoms_and_k: tuple[int, int], pool: int, generator: torch.Generator
) -> None:
    atoms, k = atoms_and_k
    x = torch.randn(shape, generator=generator)
    x[0, :, :4] = 0.5  # a constant region, with ties
    numbers = shape[1] * size * size
    scorer, maps = torch.randn(2, numbers + 1, atoms, generator=generator)
    scorer[:, -1] = scorer[:, 0]  # two equal atoms

    def run(backend: ModuleType, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        trained = maps.to(dtype).requires_grad_()
        out = backend.embed_full(x.to(dtype), scorer.to(dtype), trained, size, k, pool)
        weight = torch.linspace(-1, 1, out.numel(), dtype=dtype).reshape(out.shape)
        (gradient,) = torch.autograd.grad((out * weight).sum(), trained)
        return out.detach(), gradient, backend.embed_hard(x.to(dtype), scorer.to(dtype), size, k, pool)

    expected = run(reference, torch.float64)
    for name, ours, theirs in zip(("out", "gradient", "hard"), run(cpu, torch.float32), expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_embed__is_the_same_in_chunks(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 2, 8, 8, generator=generator)
    scorer, maps = torch.randn(2, 19, 10, generator=generator)
    whole = cpu.embed_full(x, scorer, maps, 3, 4, 2)
    monkeypatch.setattr(cpu, "CHUNK_NUMBERS", 1500)
    torch.testing.assert_close(cpu.embed_full(x, scorer, maps, 3, 4, 2), whole)


def test_embed_full__is_the_block_diagonal_linear_map_on_phi_full(generator: torch.Generator) -> None:
    """The definition: Phi_full = (g_1 z, ..., g_N z) in R^(N P), then a linear map with one block an atom."""
    n, k, size = 6, 2, 3
    x = torch.randn(2, 2, 5, 5, generator=generator, dtype=torch.float64)
    z = extract_patches(x, size)  # whitening is a matter of the maps; here it is the identity
    atoms, u = torch.randn(2, n, z.shape[-1], generator=generator, dtype=torch.float64)
    b = torch.randn(n, generator=generator, dtype=torch.float64)
    gate = brute_force_mask(torch.cdist(z.flatten(0, 2), atoms), k).reshape(*z.shape[:3], n).double()
    phi_full = (gate[..., None] * z[..., None, :]).flatten(3)  # (B, h, w, N P)
    expected = phi_full @ torch.block_diag(*u).T + gate * b

    scorer = torch.cat([-atoms.T, atoms.square().sum(1)[None] / 2])
    maps = torch.cat([u.T, b[None]])
    torch.testing.assert_close(ops.embed_full(x, scorer, maps, size, k, 1), expected.permute(0, 3, 1, 2))
    fast = ops.embed_full(x.float(), scorer.float(), maps.float(), size, k, 1)
    torch.testing.assert_close(fast.double(), expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_embed_full__gradcheck(generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 5, 5, generator=generator, dtype=torch.float64)
    scorer, maps = torch.randn(2, 10, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: ops.embed_full(x, scorer, m, 3, 2, 2), maps.requires_grad_())


def test_average_pool__averages_what_a_border_window_covers() -> None:
    pooled = reference.average_pool(torch.arange(9.0).reshape(1, 1, 3, 3), 2)
    assert pooled.flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_backend__is_compiled_for_float32_on_a_cpu_only() -> None:
    assert ops.backend(torch.zeros(1)) is cpu
    assert ops.backend(torch.zeros(1, dtype=torch.float64)) is reference
