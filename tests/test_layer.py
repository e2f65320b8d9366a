import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layerwise.config.layer import LayerConfig
from layerwise.nn.dictionary import DICTIONARIES, PatchDictionary
from layerwise.nn.embedding import EMBEDDINGS
from layerwise.nn.layer import NORMS, FrozenStack, ProbedLayer
from layerwise.ops.patches import extract_patches
from layerwise.run.directory import RunDir
from layerwise.run.records import LayerRecord, load_stack, save_dictionary, save_layer


def make_layer(config: LayerConfig, shape: tuple[int, int, int], classes: int = 3) -> ProbedLayer:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(500, config.patch_size**2 * shape[0], generator=generator)
    dictionary = PatchDictionary.fit(patches, config, generator)
    torch.manual_seed(2)
    return ProbedLayer(dictionary, config, shape, classes)


SMALL = LayerConfig(patch_size=3, atoms=8, channels=5, pool=2)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_probed_layer__has_the_shape_it_says(embedding: str, dictionary: str) -> None:
    config = replace(SMALL, probe_pool=3, embedding=embedding, dictionary=dictionary)
    expected = 5, 4, 3
    if embedding == "unconstrained":
        config, expected = replace(config, pool=1, norm="none", mix="none", probe_pool=1), (8 + 18, 7, 6)
    layer = make_layer(config, (2, 9, 8))
    out, logits = layer(torch.randn(4, 2, 9, 8), torch.zeros(4, 3))
    assert out.shape == (4, *layer.shape) == (4, *expected)
    assert logits.shape == (4, 3)


OPTIONS: list[dict[str, Any]] = [
    {"pooling": "adaptive", "pool": 2},
    {"pool": 3, "pool_step": 2},
    {"residual": "concatenate"},
    {"residual": "add", "channels": 2},
    {"metric": "cosine"},
    {"pairs": True},
    {"whitening_kind": "zca"},
    {"whitening_kind": "none", "center": False},
    {"whitening_scale": "deviation"},
    {"gate": "kth"},
    {"gate": "triangle"},
    {"gate": "soft", "learn_atoms": True},
    {"norm": "none", "mix": "none"},
    {"norm": "damped"},
    {"maps": "raw"},
    {"embedding": "relu", "convolutions": 2},
]


def test_norms__damped_keeps_a_rare_atom_small__batch_blows_it_up() -> None:
    answers = torch.randn(1000, 1, 1, 1).repeat(1, 2, 1, 1)
    answers[:, 1] *= torch.arange(1000).view(-1, 1, 1) % 100 == 0  # near to one patch in a hundred, and weakly so
    answers[:, 1] *= 0.1
    batch, damped = (NORMS[name](2)(answers).detach() for name in ("batch", "damped"))
    assert batch[:, 1].abs().max() > 5 and damped[:, 1].abs().max() < 3
    assert torch.allclose(batch[:, 0], damped[:, 0], rtol=0.01)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option__keeps_to_its_shape__trains__and_is_read_back_as_it_was(
    options: dict[str, Any], tmp_path: Path
) -> None:
    config = replace(SMALL, **options)
    layer = make_layer(config, (2, 11, 10))
    torch.nn.init.normal_(layer.probe.linear.weight)
    x, below = torch.randn(6, 2, 11, 10), torch.zeros(6, 3)
    out, logits = layer(x, below)
    assert tuple(out.shape[1:]) == layer.shape == config.output_shape(2, 11, 10)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())
    usage = layer.layer.embedding.usage(x)
    assert usage.shape == (8,) and layer.layer.embedding.patterns().shape == (8, 18) and float(usage.detach().sum()) > 0

    run_dir, settings = RunDir(tmp_path), {"layer 1": vars(config)}
    run_dir.path.joinpath("layer-1").mkdir()
    save_dictionary(run_dir, 1, layer.layer.embedding.dictionary, settings)
    record = LayerRecord(1, 8, 0.5, [], [2, 11, 10], list(layer.shape), ["a", "b", "c"], 1.0, settings)
    save_layer(run_dir, layer, record)
    stack, _ = load_stack(run_dir)
    for again, first in zip(stack(x), layer.eval()(x, below), strict=True):
        torch.testing.assert_close(again, first)


def test_cosine__nearest_is_by_direction() -> None:
    layer = make_layer(replace(SMALL, metric="cosine", embedding="hard", pool=1, neighbors=3), (2, 3, 3)).layer
    dictionary, x = layer.embedding.dictionary, torch.randn(5, 2, 3, 3)
    whitened = (extract_patches(x, 3).flatten(0, 2) - dictionary.mean) @ dictionary.whitening
    similarity = torch.nn.functional.cosine_similarity(whitened[:, None], dictionary.atoms[None], dim=2)
    gates = layer.embedding(x)[:, :, 0, 0]
    assert torch.equal(gates.bool(), similarity >= similarity.topk(3, 1).values[:, -1:])


def test_pairs__half_of_the_atoms_are_the_others_negatives() -> None:
    atoms = make_layer(replace(SMALL, pairs=True), (2, 9, 8)).layer.embedding.dictionary.atoms
    assert torch.equal(atoms[:4], -atoms[4:])


def test_residuals__join_the_averaged_input() -> None:
    x = torch.randn(3, 2, 9, 9)
    averaged = torch.nn.functional.adaptive_avg_pool2d(x, 4)
    plain = make_layer(replace(SMALL, channels=2), (2, 9, 9)).layer.eval()
    for kind in ("add", "concatenate"):
        joined = make_layer(replace(SMALL, channels=2, residual=kind), (2, 9, 9)).layer.eval()
        expected = plain(x) + averaged if kind == "add" else torch.cat([plain(x), averaged], 1)
        torch.testing.assert_close(joined(x), expected)


def test_windows__may_overlap__or_be_as_many_whatever_the_size() -> None:
    x = torch.randn(2, 2, 10, 9)
    whole = make_layer(replace(SMALL, pool=1), (2, 10, 9)).layer.embedding(x)
    overlapping = make_layer(replace(SMALL, pool=3, pool_step=2), (2, 10, 9)).layer.embedding(x)
    torch.testing.assert_close(overlapping, torch.nn.functional.avg_pool2d(whole, 3, 2, ceil_mode=True))
    adaptive = make_layer(replace(SMALL, pool=2, pooling="adaptive"), (2, 10, 9)).layer.embedding(x)
    torch.testing.assert_close(adaptive, torch.nn.functional.adaptive_avg_pool2d(whole, 2))


def test_gates__are_the_same_however_many_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = make_layer(replace(SMALL, gate="soft"), (2, 9, 8)).layer.eval(), torch.randn(5, 2, 9, 8)
    whole = layer(x)
    monkeypatch.setattr("layerwise.embedding.GATES_TOGETHER", 2 * 9 * 8 * 8)  # two images
    torch.testing.assert_close(layer(x), whole)


@pytest.mark.parametrize("maps", ["whitened", "raw"])
def test_unconstrained__is_the_linear_model_on_the_whole_of_phi_full(maps: str) -> None:
    config = replace(SMALL, embedding="unconstrained", maps=maps, pool=1, norm="none", mix="none")
    layer = make_layer(config, (2, 7, 6))
    probe, dictionary = layer.probe, layer.layer.embedding.dictionary
    torch.nn.init.normal_(probe.weight)
    torch.nn.init.normal_(probe.bias)
    x = torch.randn(4, 2, 7, 6)
    patches = extract_patches(x, 3)  # (4, 5, 4, 18)
    whitened = (patches - dictionary.mean) @ dictionary.whitening
    near = (whitened[..., None, :] - dictionary.atoms).square().sum(-1).argsort(-1).argsort(-1) < config.k
    phi = near[..., :, None] * (whitened if maps == "whitened" else patches)[..., None, :]  # (4, 5, 4, N, P)
    weight = probe.weight.reshape(5, 4, 18, 8, 3)
    expected = torch.einsum("bhwnp,hwpnc->bc", phi, weight) + probe.bias
    torch.testing.assert_close(layer(x, torch.zeros(4, 3))[1], expected, atol=1e-4, rtol=1e-4)


def test_unconstrained__is_the_same_however_many_positions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, embedding="unconstrained", pool=1, norm="none", mix="none")
    layer, x = make_layer(config, (2, 7, 6)), torch.randn(4, 2, 7, 6)
    torch.nn.init.normal_(layer.probe.weight)
    whole = layer(x, torch.zeros(4, 3))[1]
    (gradient,) = torch.autograd.grad(whole.square().sum(), layer.probe.weight)
    monkeypatch.setattr("layerwise.layer.ANSWERS", 4 * 8 * 3 * 3)  # 3 of 20 positions
    parts = layer(x, torch.zeros(4, 3))[1]
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    (again,) = torch.autograd.grad(parts.square().sum(), layer.probe.weight)
    torch.testing.assert_close(again, gradient, atol=1e-3, rtol=1e-3)


def test_convolutions__are_trained_together() -> None:
    config = replace(SMALL, embedding="relu", convolutions=3, norm="none")
    layer = make_layer(config, (2, 16, 15))
    out, _ = layer(torch.randn(4, 2, 16, 15), torch.zeros(4, 3))
    assert out.shape == (4, *layer.shape) == (4, 5, 3, 3)
    torch.nn.init.normal_(layer.probe.linear.weight)
    layer(torch.randn(4, 2, 16, 15), torch.zeros(4, 3))[1].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


def test_full_embedding__applies_its_maps_to_whitened_patches() -> None:
    layer = make_layer(SMALL, (2, 3, 3)).layer
    dictionary = layer.embedding.dictionary
    x = torch.randn(1, 2, 3, 3)
    z = (x.permute(0, 2, 3, 1).flatten() - dictionary.mean) @ dictionary.whitening
    near = (z - dictionary.atoms).square().sum(1).argsort()[:2]
    expected = torch.zeros(8)
    expected[near] = (z @ layer.embedding.maps.weight + layer.embedding.maps.bias)[near]
    torch.testing.assert_close(layer.embedding(x).flatten(), expected, atol=1e-5, rtol=1e-4)


def test_gaussian_and_uniform_atoms__have_mean_0_and_variance_1(generator: torch.Generator) -> None:
    patches = torch.randn(100, 50, generator=generator)
    for kind in ("gaussian", "uniform"):
        atoms = DICTIONARIES[kind](patches, 400, 1, generator, iter)  # type: ignore[arg-type]
        assert abs(float(atoms.mean())) < 0.03
        assert abs(float(atoms.var()) - 1) < 0.03


def test_clustered_gaussian_atoms__know_nothing_of_the_data__and_are_shorter(generator: torch.Generator) -> None:
    patches = 1000 + torch.randn(2000, 20, generator=generator)
    atoms = DICTIONARIES["kmeans_gaussian"](patches, 10, 25, generator, iter)  # type: ignore[arg-type]
    assert atoms.shape == (10, 20)
    assert 0.5 < float(atoms.norm(dim=1).mean()) < 0.5 * 20**0.5


def test_sampled_atoms__are_patches(generator: torch.Generator) -> None:
    patches = torch.randn(30, 4, generator=generator)
    atoms = DICTIONARIES["sampled"](patches, 10, 1, generator, iter)  # type: ignore[arg-type]
    assert {tuple(row) for row in atoms.tolist()} < {tuple(row) for row in patches.tolist()}


def test_summed_logits__add_to_those_below__own_do_not() -> None:
    x, below = torch.randn(2, 2, 8, 8), torch.randn(2, 3)
    summed = make_layer(SMALL, (2, 8, 8))
    assert torch.equal(summed(x, below)[1], below)  # the probe starts at zero
    own = make_layer(LayerConfig(patch_size=3, atoms=8, channels=5, pool=2, logits="own"), (2, 8, 8))
    assert torch.equal(own(x, below)[1], torch.zeros(2, 3))


def everything(stack: FrozenStack) -> dict[str, Tensor]:
    return copy.deepcopy(dict(stack.named_parameters()) | dict(stack.named_buffers()))


def test_frozen_stack__does_not_change_while_a_layer_above_trains() -> None:
    stack = FrozenStack([make_layer(SMALL, (2, 12, 12))], 3)
    before = everything(stack)
    layer = make_layer(SMALL, (5, 5, 5))
    optimizer = torch.optim.SGD([*layer.parameters(), *stack.parameters()], lr=0.1, weight_decay=0.1)
    stack.train()
    for _ in range(3):
        features, logits = stack(torch.randn(6, 2, 12, 12))
        _, logits = layer(features, logits)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
        loss.backward()
        optimizer.step()
    assert not any(module.training for module in stack.modules())
    after = everything(stack)
    assert before.keys() == after.keys() and len(before) > 10
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_frozen_stack__depths_end_in_forward() -> None:
    stack = FrozenStack([make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))], 3)
    x = torch.randn(2, 2, 12, 12)
    outputs = list(stack.depths(x))
    assert [tuple(out.shape[1:]) for out, _ in outputs] == [(5, 5, 5), (5, 2, 2)]
    assert torch.equal(stack(x)[0], outputs[-1][0])


def test_empty_stack__passes_images_on() -> None:
    x = torch.randn(2, 1, 4, 4)
    features, logits = FrozenStack([], 7)(x)
    assert features is x
    assert torch.equal(logits, torch.zeros(2, 7))


def test_probed_layer__can_be_compiled__and_trained() -> None:
    layer = make_layer(SMALL, (2, 9, 8))
    x, below = torch.randn(4, 2, 9, 8), torch.zeros(4, 3)
    torch.nn.init.normal_(layer.probe.linear.weight)
    expected = torch.autograd.grad(layer(x, below)[1].square().sum(), layer.layer.embedding.maps.weight)[0]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradient = torch.autograd.grad(compiled(x, below)[1].square().sum(), layer.layer.embedding.maps.weight)[0]
    torch.testing.assert_close(gradient, expected)


def test_stack__can_be_exported__for_any_number_of_images() -> None:
    stack = FrozenStack([make_layer(SMALL, (2, 9, 8))], 3)
    program = torch.export.export(stack, (torch.randn(4, 2, 9, 8),), dynamic_shapes=({0: torch.export.Dim("b")},))
    x = torch.randn(7, 2, 9, 8)
    for exported, expected in zip(program.module()(x), stack(x), strict=True):
        torch.testing.assert_close(exported, expected)
