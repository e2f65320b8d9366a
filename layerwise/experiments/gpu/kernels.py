"""The GPU's kernels against plain PyTorch: what is near, embedding and gradient; the same bits every time.

For shapes see `layerwise.ops`.
"""

from copy import deepcopy
from functools import partial

import torch
from torch import Tensor

from layerwise.config import Layer, Optimizer
from layerwise.experiments.benchmark.steps import CLASSES, natural_inputs, training_step, untrained_layer
from layerwise.experiments.gpu.findings import Check, Finding
from layerwise.nn.dictionary import learn_dictionary
from layerwise.ops import reference, sample_patches
from layerwise.ops.near import layout, mask_of

Case = tuple[tuple[int, int, int, int], int, int, int, int]
"""(B, C, H, W), s, N, k, pool"""
Shape = tuple[Layer, tuple[int, int, int]]
"""a layer, and (C, H, W) of its input"""

CASES: list[Case] = [
    *(((2, 2, 7, 5), 3, 13, 4, pool) for pool in (1, 3)),
    ((1, 3, 6, 6), 1, 13, 13, 2),
    ((1, 1, 6, 5), 2, 130, 129, 2),
    ((1, 1, 6, 5), 2, 600, 600, 4),
    ((2, 2, 7, 5), 3, 65, 4, 3),
    ((5, 4, 7, 7), 7, 40, 2, 1),
    ((1, 2, 9, 9), 2, 1500, 300, 5),
    ((1, 2, 9, 9), 2, 1500, 7, 2),
    ((64, 3, 32, 32), 5, 256, 64, 2),
    ((32, 3, 32, 32), 5, 1024, 256, 4),
    ((64, 64, 14, 14), 3, 512, 16, 2),
    ((32, 64, 14, 14), 3, 4096, 16, 2),
]
"""of every kernel and tile, at sizes that divide nothing, and at the recipes' shapes"""
STEPS = 5
"""of a layer, that are made twice"""
NEAR_TIES = 1e-5
"""share of the gates that float32 may decide otherwise than float64, at most: of atoms that are as near as others"""


def checks(cases: list[Case], layers: list[Shape], batch: int, device: torch.device) -> list[Check]:
    """Whether every kernel does what it should; on inputs like a layer's, too, `batch` of them."""
    found = [Check(f"kernels, {_words(*case)}", partial(_parity, case, device)) for case in cases]
    for tried, name in ((_gates, "gates"), (_repeated, "steps")):
        found += [Check(f"{name}, {_named(*of)}", partial(tried, *of, batch, device)) for of in layers]
    return [*found, Check("sums of clusters", partial(_clusters, device))]


def _words(shape: tuple[int, ...], size: int, atoms: int, k: int, pool: int) -> str:
    kept = "bits" if layout(atoms, k)[1] == torch.uint8 else "indices"
    return f"{'×'.join(map(str, shape))}, s = {size}, N = {atoms}, k = {k}, pool {pool}, {kept}"


def _named(layer: Layer, shape: tuple[int, int, int]) -> str:
    return f"{'×'.join(map(str, shape))}, s = {layer.patch_size}, N = {layer.atoms}, k = {layer.k}"


def _parity(case: Case, device: torch.device) -> list[Finding]:
    differing = disagreements(*case, device)
    told = ", ".join(differing) + " differ" if differing else "all agree"
    return [Finding(f"kernels, {_words(*case)}", told, "all agree", not differing)]


def disagreements(
    shape: tuple[int, int, int, int], size: int, atoms: int, k: int, pool: int, device: torch.device
) -> list[str]:
    """What of the kernels' results is not the reference's in float64, or not the same at a second call; in words.

    Pixels have 13 bits, more than one product of the matrix units takes; scorers have 3, so that scores are exact in
    float32, many of them are equal, and the very same atoms are to be near.
    """
    from layerwise.ops import cuda

    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(shape, generator=generator) * 1024).round().clamp(-4096, 4096) / 1024
    x[0, :, :3] = 0.5
    scorer, maps = torch.randn(2, size * size * shape[1] + 1, atoms, generator=generator)
    scorer = (scorer * 2).round().clamp(-4, 4)
    scorer[:, -1] = scorer[:, 0]
    x, scorer, maps = (values.to(device) for values in (x, scorer, maps))
    exact = maps.double().requires_grad_()
    expected = reference.embed(x.double(), scorer.double(), exact, size, k, pool)
    out, near = cuda.forward(x, scorer, maps, size, k, pool)
    hard, _ = cuda.forward(x, scorer, None, size, k, pool)
    grad = torch.randn(out.shape, generator=generator).to(device)
    gradient = cuda.backward(x, grad, near, size, pool)
    (expected_gradient,) = torch.autograd.grad(expected, exact, grad.double())
    expected_hard = reference.embed(x.double(), scorer.double(), None, size, k, pool)
    not_asked = torch.full_like(scorer, torch.nan)
    agree = {
        "gates": torch.equal(near, reference.near(x.double(), scorer.double(), size, k)),
        "gates found apart": torch.equal(near, cuda.near(x, scorer, size, k)),
        "embedding": _close(out, expected, 1e-4),
        "embedding on known gates": torch.equal(cuda.forward(x, not_asked, maps, size, k, pool, near)[0], out),
        "embedding without maps": _close(hard, expected_hard, 1e-6),
        "gradient": _close(gradient, expected_gradient, 1e-4),
        "gradient, again": torch.equal(cuda.backward(x, grad, near, size, pool), gradient),
    }
    return [what for what, same in agree.items() if not same]


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    unit = tolerance * max(1.0, float(expected.detach().square().mean().sqrt()))
    return torch.allclose(found.double(), expected.detach(), rtol=tolerance, atol=unit)


def _gates(layer: Layer, shape: tuple[int, int, int], batch: int, device: torch.device) -> list[Finding]:
    """Gates of inputs like a layer's against a search in float64 through all atoms."""
    from layerwise.ops import cuda

    generator = torch.Generator().manual_seed(0)
    x = natural_inputs(batch, shape, generator)
    sample = sample_patches([x], layer.patch_size, max(4096, 2 * layer.atoms), batch, generator)
    scorer = learn_dictionary(sample, layer.atoms, generator, "sampled", layer.whitening).scorer.to(device)
    wrong, count, what, wanted = 0, 0, f"gates, {_named(layer, shape)}", f"k a patch, ≤ {NEAR_TIES:g} other"
    for part in torch.split(x.to(device), 16):  # all gates of more in float64 may not fit
        near = cuda.near(part, scorer, layer.patch_size, layer.k)
        exact = reference.near(part.double(), scorer.double(), layer.patch_size, layer.k)
        marks, expected = (mask_of(each, layer.atoms) for each in (near, exact))
        wrong, count = wrong + int((marks != expected).sum()), count + marks.numel()
        if bool((marks.sum(-1) != layer.k).any()):
            return [Finding(what, "not k a patch", wanted, False)]
    told = f"{wrong:,} of {count:,} other than by float64"
    return [Finding(what, told, wanted, wrong <= NEAR_TIES * count, wrong / count)]


def _repeated(layer: Layer, shape: tuple[int, int, int], batch: int, device: torch.device) -> list[Finding]:
    """A few whole steps from the same weights, twice; and whether they leave more memory taken than one does."""
    what, first = f"steps, {_named(layer, shape)}", untrained_layer(layer, shape, CLASSES).to(device)
    x, on_gpu = natural_inputs(batch, shape, torch.Generator().manual_seed(0)).to(device), device.type == "cuda"
    weights, held = [], list[int]()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        trained = deepcopy(first)
        step = training_step(trained, x, CLASSES, Optimizer())
        for _ in range(STEPS):
            step()
            held.append(torch.cuda.memory_allocated(device) if on_gpu else 0)
        weights.append(trained.state_dict())
        del trained, step
    same = all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    told = f"{'the same' if same else 'other'} bits after {STEPS} steps"
    found = [Finding(f"{what}, twice", told, "the same bits", same)]
    if on_gpu:
        more, peak = held[STEPS - 1] - held[0], torch.cuda.max_memory_allocated(device) / 2**30
        told = f"{peak:.2f} GiB at most, after {STEPS} steps {more:,} bytes more than after one"
        found.append(Finding(f"{what}, memory", told, "0 more", more <= 0, peak))
    return found


def _clusters(device: torch.device) -> list[Finding]:
    """The sums of k-means, twice, against float64."""
    from layerwise.ops import cuda

    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1 << 16, 75, generator=generator).to(device)
    index = torch.randint(0, 1000, (len(points),), generator=generator).square().remainder(1000).to(device)
    sums, sizes = cuda.add_up(points, index, 1000)
    again, _ = cuda.add_up(points, index, 1000)
    expected, counted = reference.add_up(points.double().cpu(), index.cpu(), 1000)
    right = _close(sums.cpu(), expected, 1e-4) and torch.equal(sizes.cpu(), counted)
    same = torch.equal(sums, again)
    told = f"{'right' if right else 'wrong'}, {'the same' if same else 'other'} bits twice"
    return [Finding("sums of clusters", told, "right, the same bits", right and same)]
