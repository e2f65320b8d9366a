"""Embeddings, against their formulas."""

from dataclasses import replace

import torch

from layerwise.config import Gate, Maps
from layerwise.nn.embedding import AffineMaps
from layerwise.ops import extract_patches
from tests.nn.layers import SMALL, make_layer


def test_cosine__nearest_is_by_direction() -> None:
    settings = replace(SMALL, gate=Gate(metric="cosine"), embedding="hard", pool=1, neighbors=3)
    layer = make_layer(settings, (2, 3, 3)).layer
    dictionary, x = layer.embedding.dictionary, torch.randn(5, 2, 3, 3)
    whitened = (extract_patches(x, 3).flatten(0, 2) - dictionary.mean) @ dictionary.whitening
    similarity = torch.nn.functional.cosine_similarity(whitened[:, None], dictionary.atoms[None], dim=2)
    gates = layer.embedding(x)[:, :, 0, 0]
    assert torch.equal(gates.bool(), similarity >= similarity.topk(3, 1).values[:, -1:])


def test_windows__are_averaged() -> None:
    x = torch.randn(2, 2, 10, 9)
    whole = make_layer(replace(SMALL, pool=1), (2, 10, 9)).layer.embedding(x)
    for pool in (2, 3, 5):
        pooled = make_layer(replace(SMALL, pool=pool), (2, 10, 9)).layer.embedding(x)
        torch.testing.assert_close(pooled, torch.nn.functional.avg_pool2d(whole, pool, ceil_mode=True))


def test_full_embedding__applies_its_maps_to_whitened_patches() -> None:
    layer = make_layer(SMALL, (2, 3, 3)).layer
    dictionary, maps = layer.embedding.dictionary, layer.embedding.maps
    assert isinstance(maps, AffineMaps)
    torch.nn.init.normal_(maps.bias)
    x = torch.randn(1, 2, 3, 3)
    z = (x.permute(0, 2, 3, 1).flatten() - dictionary.mean) @ dictionary.whitening
    near = (z - dictionary.atoms).square().sum(1).argsort()[:2]
    expected = torch.zeros(8)
    expected[near] = (z @ maps.weight + maps.bias)[near]
    torch.testing.assert_close(layer.embedding(x).flatten(), expected, atol=1e-5, rtol=1e-4)


def test_raw_maps__act_on_patches_as_they_are() -> None:
    layer = make_layer(replace(SMALL, maps=Maps("raw")), (2, 3, 3)).layer
    dictionary, maps = layer.embedding.dictionary, layer.embedding.maps
    assert isinstance(maps, AffineMaps)
    x = torch.randn(1, 2, 3, 3)
    z = x.permute(0, 2, 3, 1).flatten()
    near = (dictionary.whiten(z) - dictionary.atoms).square().sum(1).argsort()[:2]
    expected = torch.zeros(8)
    expected[near] = (z @ maps.weight + maps.bias)[near]
    torch.testing.assert_close(layer.embedding(x).flatten(), expected, atol=1e-5, rtol=1e-4)


def test_hard_embedding__is_the_gates_alone__and_has_no_maps() -> None:
    layer = make_layer(replace(SMALL, embedding="hard", pool=1), (2, 6, 5)).layer
    dictionary, x = layer.embedding.dictionary, torch.randn(3, 2, 6, 5)
    distance = dictionary.distance(extract_patches(x, 3))
    near = distance.argsort(-1).argsort(-1) < 2
    assert torch.equal(layer.embedding(x), near.float().permute(0, 3, 1, 2))
    assert layer.embedding.maps is None and not list(layer.embedding.parameters())


def test_kernels__are_what_each_map_does_to_a_patch_as_it_is() -> None:
    embedding = make_layer(SMALL, (2, 3, 3)).layer.embedding
    kernels, maps, (first, second) = embedding.kernels(), embedding.maps, torch.randn(2, 18)
    assert kernels is not None and isinstance(maps, AffineMaps)
    expected = (embedding.dictionary.whiten(first) - embedding.dictionary.whiten(second)) @ maps.weight
    torch.testing.assert_close(kernels @ (first - second), expected, atol=1e-4, rtol=1e-4)
    assert not kernels.requires_grad
    assert make_layer(replace(SMALL, embedding="hard"), (2, 3, 3)).layer.embedding.kernels() is None
