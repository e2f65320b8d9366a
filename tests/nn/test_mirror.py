"""A mirrored stack answers to an image just as to its mirror image, and holds half the weights."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from layerwise.config import Layer, Norm, Whitening
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.nn.kmeans import kmeans
from layerwise.nn.layer import ProbedLayer, build_layer, shape_through
from layerwise.nn.mirror import Mirror, exchanged, folded, mirror_of, patch_mirror
from layerwise.nn.projection import normalized
from layerwise.nn.stack import FrozenStack
from layerwise.nn.whitening import fit_whitening
from layerwise.ops import extract_patches

OWN = Layer(patch_size=3, atoms=8, neighbors=3, channels=6, pool=2, mirror=True)


def mirrored(maps: torch.Tensor) -> torch.Tensor:
    """What becomes of a layer's output, by the words of `layerwise.nn.mirror`."""
    return exchanged(maps.flip(3), 1)


def layer_on(x: torch.Tensor, own: Layer, paired: bool, seed: int = 0) -> ProbedLayer:
    """A layer whose every weight is drawn, and whose norm remembers."""
    generator = torch.Generator().manual_seed(seed)
    patches = extract_patches(x, own.patch_size).flatten(0, 2).clone()
    mirror = patch_mirror(x.shape[1], own.patch_size, paired)
    components = (own.channels or 0) if own.output == "gates" else 0
    dictionary = learn_dictionary(
        *(patches, own.atoms, generator, own.dictionary, own.whitening),
        mirror=mirror,
        neighbors=own.k,
        components=components,
    )
    torch.manual_seed(seed)
    layer = build_layer(own, dictionary, (x.shape[1], x.shape[2], x.shape[3]), 5)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    layer.train()(x)
    return layer.eval()


def test_patch_mirror__says_where_the_numbers_of_a_mirrored_patch_come_from() -> None:
    # a patch of 2×2 with one channel is a b / c d; mirrored, b a / d c
    assert patch_mirror(1, 2, False).tolist() == [1, 0, 3, 2]
    # with two channels that are a pair, a A b B / …: each pixel's two are exchanged, too
    assert patch_mirror(2, 2, True).tolist() == [3, 2, 1, 0, 7, 6, 5, 4]


@pytest.mark.parametrize("kind", ["pca", "zca", "none"])
def test_mirror_of__mirrors_in_whitened_coordinates(kind: str) -> None:
    x = torch.randn(40, 2, 6, 5, generator=torch.Generator().manual_seed(1))
    order = patch_mirror(2, 3, True)
    whiten = fit_whitening(extract_patches(x, 3).flatten(0, 2), 0.1, kind, mirror=order)
    turn = mirror_of(whiten.matrix, order)
    ahead, back = (extract_patches(part, 3).flatten(0, 2) for part in (x, mirrored(x)))
    # the patches of the mirror image come in the reverse order along a row
    behind = extract_patches(mirrored(x), 3).flip(2).flatten(0, 2)
    torch.testing.assert_close(turn(whiten(ahead)), whiten(behind), atol=1e-4, rtol=1e-4)
    assert not torch.equal(behind, back)


def test_fit_whitening__is_that_of_the_patches_and_their_mirror_images() -> None:
    patches = torch.randn(500, 18, generator=torch.Generator().manual_seed(2)) @ torch.randn(
        18, 18, generator=torch.Generator().manual_seed(3)
    )
    order = patch_mirror(2, 3, True)
    once = fit_whitening(patches, 0.05, mirror=order)
    whole = torch.cat([patches, patches[:, order]])
    twice = fit_whitening(whole, 0.05)
    torch.testing.assert_close(once.mean, twice.mean)
    # the same up to the sign of a component
    same = once.matrix.T @ torch.linalg.pinv(twice.matrix).T
    torch.testing.assert_close(same.abs(), torch.eye(18), atol=1e-3, rtol=0)


def test_kmeans__finds_clusters_and_their_mirror_images_as_pairs() -> None:
    generator = torch.Generator().manual_seed(4)
    turn = Mirror(torch.arange(4), torch.tensor([1.0, -1.0, 1.0, -1.0]))
    centers = torch.tensor([[5.0, 5, 0, 0], [0, 0, 5, 5], [5, 0, 5, 1]])
    points = centers.repeat(200, 1) + 0.1 * torch.randn(600, 4, generator=generator)
    points = torch.where(torch.rand(600, 1, generator=generator) < 0.5, points, turn(points))
    found = kmeans(points, 3, 20, generator, mirror=turn)
    every = turn.closed(found)
    nearest = torch.cdist(torch.cat([centers, turn(centers)]), every).amin(1)
    assert every.shape == (6, 4) and float(nearest.max()) < 0.05


@pytest.mark.parametrize("kind", ["kmeans", "sampled", "gaussian", "kmeans_gaussian"])
def test_learn_dictionary__atoms_are_in_pairs(kind: str) -> None:
    patches = torch.randn(400, 27, generator=torch.Generator().manual_seed(5))
    order = patch_mirror(3, 3, False)
    learned = learn_dictionary(patches, 10, torch.Generator().manual_seed(6), kind, mirror=order)
    patterns = learned.patterns()
    torch.testing.assert_close(patterns[5:], patterns[:5][:, order], atol=1e-4, rtol=1e-4)
    restored = PatchDictionary.of(learned.state_dict())
    assert torch.equal(restored.scorer, learned.scorer) and restored.mirror is not None


@pytest.mark.parametrize(
    "own",
    [
        OWN,
        replace(OWN, maps=replace(OWN.maps, kind="raw")),
        replace(OWN, embedding="hard"),
        replace(OWN, output="gates"),
        replace(OWN, channels=None),
        replace(OWN, gate=replace(OWN.gate, kind="relu")),
        replace(OWN, gate=replace(OWN.gate, kind="soft")),
        replace(OWN, whitening=Whitening("zca", 0.1)),
        replace(OWN, norm=Norm("none")),
        replace(OWN, atoms=64, neighbors=1, pool=2),  # few near atoms: without zeros
    ],
)
def test_layer__an_image_and_its_mirror_image_have_the_same_logits(own: Layer) -> None:
    x = torch.rand(20, 3, 10, 10, generator=torch.Generator().manual_seed(7))
    first = layer_on(x, own, False)
    with torch.no_grad():
        inner = first(x)[0]
    above = replace(own, residual=replace(own.residual, kind="concatenate"), pool=1)
    second = layer_on(inner, above, True, 1)
    for training in (False, True):
        ahead, back = (list(_depths([first, second], part, training)) for part in (x, x.flip(3)))
        for (out, logits), (turned, others) in zip(ahead, back, strict=True):
            torch.testing.assert_close(turned, mirrored(out), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(others, logits, atol=1e-4, rtol=1e-4)
            assert float(logits.std(0).min()) > 1e-3
            assert not torch.allclose(out, mirrored(out), atol=1e-2)


def test_layer__an_image_and_its_mirror_image_have_the_same_logits__where_patches_are_of_one_color() -> None:
    generator = torch.Generator().manual_seed(9)
    x = torch.randint(2, 5, (40, 1, 1, 1), generator=generator).float().expand(-1, 3, 10, 10) / 4
    x = x.clone()
    x[:, :, 3:7, 2:6] = torch.rand(40, 3, 4, 4, generator=generator)
    layer = layer_on(x, replace(OWN, atoms=16, neighbors=4, dictionary="sampled"), False)
    with torch.no_grad():
        torch.testing.assert_close(layer(x.flip(3))[1], layer(x)[1], atol=1e-4, rtol=1e-4)


def _depths(layers: list[ProbedLayer], x: torch.Tensor, training: bool):  # type: ignore[no-untyped-def]
    logits = None
    for layer in layers:
        layer.train(training)
        with torch.no_grad():
            x, logits = layer(x, logits)
        yield x, logits


@pytest.mark.parametrize("own", [OWN, replace(OWN, atoms=64, neighbors=1)])
def test_layer__learns_as_the_untied_layer_whose_pairs_are_tied(own: Layer) -> None:
    """Loss and gradients are those of plain modules with each pair's weights written twice."""
    x = torch.rand(12, 3, 10, 10, generator=torch.Generator().manual_seed(8))
    labels = torch.arange(12) % 5
    layer = layer_on(x, own, False).train()
    loss = nn.functional.cross_entropy(layer(x)[1], labels)
    gradients = torch.autograd.grad(loss, list(layer.parameters()))

    embedding, order = layer.layer.embedding, patch_mirror(3, 3, False)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}
    dictionary = embedding.dictionary
    plain = extract_patches(x, 3)
    maps, offsets = leaves["layer.embedding.maps.weight"], leaves["layer.embedding.maps.bias"]
    near = dictionary.distance(plain).argsort(dim=-1, stable=True)[..., : own.k]
    gate = torch.zeros(*near.shape[:-1], own.atoms).scatter(-1, near, 1.0)
    answers = [dictionary.whiten(patches) @ maps + offsets for patches in (plain, plain[..., order])]
    embedded = (gate * torch.cat(answers, -1)).permute(0, 3, 1, 2)
    pooled = nn.functional.avg_pool2d(embedded, 2, ceil_mode=True, count_include_pad=False)
    halves = torch.cat(pooled.chunk(2, 1), 0)
    mean, variance = halves.mean((0, 2, 3), keepdim=True), halves.var((0, 2, 3), keepdim=True, correction=0)
    scale, shift = (leaves[f"layer.norm.{name}"][:, None, None] for name in ("weight", "bias"))
    normal = (halves - mean) / (variance + 1e-5).sqrt() * scale + shift
    pairs = torch.cat(normal.chunk(2, 0), 1)
    weight, bias = leaves["layer.projection.weight"][:, :, 0, 0], leaves["layer.projection.bias"]
    first = torch.einsum("bnij,dn->bdij", pairs, weight) + bias[:, None, None]
    second = torch.einsum("bnij,dn->bdij", pairs, exchanged(weight, 1)) + bias[:, None, None]
    seen = (first + second.flip(3)).flatten(1)
    logits = seen @ leaves["probe.linear.weight"].T + leaves["probe.linear.bias"]
    expected = nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, list(leaves.values())), strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-3, rtol=1e-3)


def test_layer__holds_half_the_weights() -> None:
    x = torch.rand(20, 3, 10, 10, generator=torch.Generator().manual_seed(9))
    layer = layer_on(x, OWN, False)
    sizes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert sizes["layer.embedding.maps.weight"] == (27, 4)
    assert sizes["layer.norm.weight"] == (4,)
    assert sizes["layer.projection.weight"] == (3, 8, 1, 1)
    assert sizes["probe.linear.weight"] == (5, 3 * 4 * 4)
    assert layer.shape == shape_through(OWN, (3, 10, 10)) == (6, 4, 4)


def test_normalized__both_of_a_pair_are_one_channel() -> None:
    embedded = torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(10)) * 3 + 1
    out = normalized(nn.BatchNorm2d(2), embedded, pairs=True)
    together = torch.stack([out[:, :2], out[:, 2:]])
    torch.testing.assert_close(together.mean((0, 1, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(together.var((0, 1, 3, 4), correction=0), torch.ones(2), atol=1e-4, rtol=0)
    assert float(out.detach().mean((0, 2, 3)).abs().min()) > 1e-3


def test_folded__adds_each_pair_mirrored_back() -> None:
    maps = torch.tensor([[[[1.0, 2]], [[10, 20]]]])
    assert folded(maps).tolist() == [[[[21, 12]]]]
    assert torch.equal(folded(mirrored(maps)), folded(maps))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stack__frozen_layers_are_invariant_too(channels: int) -> None:
    x = torch.rand(10, channels, 10, 10, generator=torch.Generator().manual_seed(11))
    stack = FrozenStack([layer_on(x, OWN, False)])
    torch.testing.assert_close(stack(x.flip(3))[1], stack(x)[1], atol=1e-4, rtol=1e-4)
