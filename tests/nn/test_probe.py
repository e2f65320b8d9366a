"""Probes, against the linear models that they are."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from layerwise.config import Maps, Norm, Probe
from layerwise.config.choices import PROBES, STARTS
from layerwise.nn import probe as probes
from layerwise.nn.probe import LinearProbe, UnconstrainedProbe
from layerwise.ops import extract_patches
from tests.nn.layers import SMALL, make_layer

UNCONSTRAINED = replace(SMALL, probe=Probe("unconstrained"), pool=1, norm=Norm("none"), channels=None)


def test_linear__classifies_the_flattened_averages() -> None:
    probe = LinearProbe((2, 3, 3), 4, Probe(pool=2, init="random"), 8)
    x = torch.randn(5, 2, 3, 3)
    averaged = F.avg_pool2d(x, 2, ceil_mode=True).flatten(1)  # the last windows hold a row, a column, a pixel
    torch.testing.assert_close(averaged[:, 3], x[:, 0, 2, 2])
    torch.testing.assert_close(probe(x), averaged @ probe.linear.weight.T + probe.linear.bias)


@pytest.mark.parametrize("kind", PROBES)
def test_probes__begin_at_zero__or_as_pytorch_begins(kind: str) -> None:
    torch.manual_seed(0)
    shape = (20, 4, 3) if kind == "linear" else (20 + 12, 4, 3)  # 20 atoms, and patches of 12 numbers
    inputs = 240 if kind == "linear" else 12 * 12 * 20
    for start in STARTS:
        own = PROBES[kind](shape, 10, Probe(kind, init=start), 20)
        numbers = torch.cat([parameter.detach().flatten() for parameter in own.parameters()])
        assert len(numbers) == 10 * inputs + 10
        if start == "zero":
            assert not numbers.any()
        else:
            assert float(numbers.abs().max()) <= inputs**-0.5
            assert float(numbers.std()) == pytest.approx((3 * inputs) ** -0.5, rel=0.05)


@pytest.mark.parametrize("maps", ["whitened", "raw"])
def test_unconstrained__is_the_linear_model_on_the_whole_of_phi_full(maps: str) -> None:
    config = replace(UNCONSTRAINED, maps=Maps(maps))
    layer = make_layer(config, (2, 7, 6))
    probe, dictionary = layer.probe, layer.layer.embedding.dictionary
    assert isinstance(probe, UnconstrainedProbe)
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
    layer, x = make_layer(UNCONSTRAINED, (2, 7, 6)), torch.randn(4, 2, 7, 6)
    assert isinstance(layer.probe, UnconstrainedProbe)
    torch.nn.init.normal_(layer.probe.weight)
    whole = layer(x, torch.zeros(4, 3))[1]
    (gradient,) = torch.autograd.grad(whole.square().sum(), layer.probe.weight)
    monkeypatch.setattr(probes, "TOGETHER", 4 * 8 * 3 * 3)  # 3 of 20 positions
    parts = layer(x, torch.zeros(4, 3))[1]
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    (again,) = torch.autograd.grad(parts.square().sum(), layer.probe.weight)
    torch.testing.assert_close(again, gradient, atol=1e-3, rtol=1e-3)
