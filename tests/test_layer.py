import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from layerwise.dictionary import DICTIONARIES, PatchDictionary
from layerwise.embedding import EMBEDDINGS
from layerwise.layer import FrozenStack, ProbedLayer
from layerwise.layer_config import LayerConfig
from layerwise.patches import extract_patches


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
