"""A layer and its probe: every choice of every part, shapes, logits."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layerwise.config import Gate, Layer, Norm, Probe, Residual, SingleLayer
from layerwise.config.choices import (
    DICTIONARIES,
    EMBEDDINGS,
    FORMULAS,
    GATES,
    MAPS,
    METRICS,
    NORMS,
    PROBES,
    RESIDUALS,
    STARTS,
    WHITENINGS,
)
from layerwise.config.run import restore
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.embedding import AffineMaps, Full
from layerwise.nn.gates import Nearest
from layerwise.nn.layer import shape_through
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.ops import extract_patches
from layerwise.run.record import LayerRecord
from layerwise.run.run import Run
from tests.nn.layers import SMALL, make_layer

PARTS = {
    "embedding": EMBEDDINGS,
    "dictionary": DICTIONARIES,
    "whitening.kind": WHITENINGS,
    "whitening.formula": FORMULAS,
    "gate.kind": GATES,
    "gate.metric": METRICS,
    "maps.kind": MAPS,
    "norm.kind": NORMS,
    "residual.kind": RESIDUALS,
    "probe.kind": PROBES,
    "probe.init": STARTS,
}
BARE = {"pool": 1, "norm": {"kind": "none"}, "channels": None}
"""what the unconstrained probe goes with"""
OTHERS: list[dict[str, Any]] = [
    {"whitening": {"kind": "none", "center": False}},
    {"norm": {"kind": "none"}, "channels": None},
    {"norm": {"eps": 0.01}},
    {"gate": {"kind": "soft"}, "embedding": "hard"},
    {"gate": {"kind": "relu"}, "maps": {"kind": "raw"}},
    {"residual": {"kind": "concatenate"}, "channels": None},
    {"probe": {"pool": 2, "init": "random", "logits": "own"}},
    {"output": "gates", "neighbors": 3},
    {"output": "gates", "residual": {"kind": "concatenate"}, "gate": {"metric": "cosine"}},
    {"probe": {"kind": "unconstrained", "init": "random"}, "maps": {"kind": "raw"}} | BARE,
]


def chosen(setting: str, name: str) -> dict[str, Any]:
    """The settings that make a choice."""
    group, _, last = setting.partition(".")
    return {group: {last: name} if last else name} | (BARE if name == "unconstrained" else {})


OPTIONS = [chosen(setting, name) for setting, choices in PARTS.items() for name in choices] + OTHERS


def small(settings: dict[str, Any]) -> Layer:
    layer: Layer = restore(Layer, {"patch_size": 3, "atoms": 8, "channels": 5, "pool": 2} | settings)
    assert layer.conflict() is None
    return layer


@pytest.mark.parametrize("embedding", [*EMBEDDINGS, "unconstrained"])
@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_probed_layer__has_the_shape_it_says(embedding: str, dictionary: str) -> None:
    expected = 5, 4, 3
    if embedding == "unconstrained":
        config, expected = small({"probe": {"kind": "unconstrained"}} | BARE), (8 + 18, 7, 6)
    else:
        config = replace(SMALL, probe=Probe(pool=3), embedding=embedding)
    layer = make_layer(replace(config, dictionary=dictionary), (2, 9, 8))
    out, logits = layer(torch.randn(4, 2, 9, 8), torch.zeros(4, 3))
    assert out.shape == (4, *layer.shape) == (4, *expected)
    assert logits.shape == (4, 3)


SHAPES = [
    (Layer(patch_size=3, atoms=8, channels=5, pool=2), (2, 9, 8), (5, 4, 3)),  # 7 and 6 positions
    (Layer(patch_size=1, atoms=8, channels=5, pool=1), (3, 5, 4), (5, 5, 4)),
    (Layer(patch_size=2, atoms=8, channels=3, pool=4), (1, 10, 7), (3, 3, 2)),  # 9 and 6 positions
    (Layer(patch_size=5, atoms=9, channels=4, pool=3), (2, 14, 11), (4, 4, 3)),  # 10 and 7 positions
    (Layer(patch_size=3, atoms=8, channels=5, pool=7), (2, 5, 8), (5, 1, 1)),
    (Layer(patch_size=4, atoms=8, channels=5, pool=2), (2, 4, 4), (5, 1, 1)),
    (Layer(patch_size=3, atoms=8, channels=None, pool=2), (2, 9, 8), (8, 4, 3)),
    (Layer(patch_size=3, atoms=8, channels=5, pool=2, embedding="hard"), (2, 9, 8), (5, 4, 3)),
    (Layer(patch_size=3, atoms=8, channels=5, pool=2, residual=Residual("concatenate")), (2, 9, 8), (7, 4, 3)),
    (Layer(patch_size=3, atoms=8, channels=4, pool=2, output="gates"), (2, 9, 8), (4, 4, 3)),
    (
        Layer(patch_size=3, atoms=8, channels=4, output="gates", mirror=True, residual=Residual("concatenate")),
        (2, 9, 8),
        (6, 4, 3),
    ),
    (Layer(patch_size=2, atoms=8, channels=None, pool=3, residual=Residual("concatenate")), (4, 9, 8), (12, 3, 3)),
    (
        Layer(patch_size=3, atoms=8, pool=1, channels=None, norm=Norm("none"), probe=Probe("unconstrained")),
        (2, 9, 8),
        (8 + 18, 7, 6),
    ),
    *[
        (Layer(patch_size=3, atoms=8, channels=5, pool=3, gate=Gate(name)), (2, 10, 7), (5, 3, 2)) for name in GATES
    ],  # 8 and 5 positions
]


@pytest.mark.parametrize("config, shape, expected", SHAPES, ids=str)
def test_shape_through__is_the_shape_of_a_real_pass(
    config: Layer, shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    layer = make_layer(config, shape, paired=True).eval()
    out, _ = layer(torch.randn(2, *shape))
    assert shape_through(config, shape) == layer.shape == tuple(out.shape[1:]) == expected


def test_norms__large_eps_keeps_a_rare_atom_small__small_blows_it_up() -> None:
    answers = torch.randn(1000, 1, 1, 1).repeat(1, 2, 1, 1)
    answers[:, 1] *= torch.arange(1000).view(-1, 1, 1) % 100 == 0  # near to one patch in a hundred, and weakly so
    answers[:, 1] *= 0.1
    batch, damped = (NORMS["batch"](2, eps)(answers).detach() for eps in (1e-5, 0.01))
    assert batch[:, 1].abs().max() > 5 and damped[:, 1].abs().max() < 3
    assert torch.allclose(batch[:, 0], damped[:, 0], rtol=0.01)
    assert NORMS["none"](2, 0.01)(answers) is answers


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option__keeps_to_its_shape__trains__and_is_read_back_as_it_was(
    options: dict[str, Any], tmp_path: Path
) -> None:
    config = small(options)
    layer = make_layer(config, (2, 11, 10))
    with torch.no_grad():
        for parameter in layer.probe.parameters():
            parameter.add_(torch.randn(parameter.shape))
    x, below = torch.randn(6, 2, 11, 10), torch.zeros(6, 3)
    _, logits = layer(x, below)
    assert tuple(layer.layer.handed_on(x).shape[1:]) == layer.shape == shape_through(config, (2, 11, 10))
    torch.autograd.backward(logits.square().sum())
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in layer.parameters())
    usage = layer.layer.embedding.usage(x)
    assert usage.shape == (8,) and layer.layer.embedding.patterns().shape == (8, 18) and float(usage.detach().sum()) > 0

    run = Run(tmp_path)
    settings = {"layer 1": asdict(SingleLayer(**{name: getattr(config, name) for name in Layer.__dataclass_fields__}))}
    run.layer(1).save_dictionary(layer.layer.embedding.dictionary, settings)
    record = LayerRecord(1, 8, 0.5, [], [2, 11, 10], list(layer.shape), ["a", "b", "c"], 1.0, settings)
    assert run.layer(1).save(layer, record) == record
    assert run.records == [record]
    stack = run.stack()
    again_layer = stack.layers[0]
    assert again_layer.shape == layer.shape
    stored = layer.state_dict()
    assert again_layer.state_dict().keys() == stored.keys()
    assert all(torch.equal(value, stored[name]) for name, value in again_layer.state_dict().items())
    for again, first in zip(stack(x), layer.eval()(x, below), strict=True):
        torch.testing.assert_close(again, first)


class Counting(Nearest):
    """Notes each time that it has to find out which atoms are near."""

    found = 0

    def pooled(self, *given: Any, **near: Any) -> Tensor:
        self.found += len(given) < 5
        return super().pooled(*given, **near)

    def ask(self, dictionary: PatchDictionary) -> Callable[[Tensor], Tensor]:
        tell = super().ask(dictionary)
        assert tell is not None

        def counted(x: Tensor) -> Tensor:
            self.found += 1
            return tell(x)

        return counted


@pytest.mark.parametrize("output", ["channels", "gates"])
def test_layer__finds_out_once_which_atoms_are_near__for_its_probe_and_for_the_next_layer(output: str) -> None:
    layer = make_layer(small({"output": output, "neighbors": 3}), (2, 9, 9)).eval().layer
    layer.embedding.gate = gate = Counting(3, 3)
    x = torch.randn(4, 2, 9, 9)
    read, out = layer.both(x)
    assert gate.found == 1
    assert torch.equal(read, layer(x)) and torch.equal(out, layer.handed_on(x))
    assert gate.found == 3
    assert torch.equal(read, out) == (output == "channels")


def test_residual__puts_the_middles_of_the_patches_averaged_beside_the_output() -> None:
    x = torch.randn(3, 2, 9, 9)
    for patch_size, middles in (
        (3, x[:, :, 1:8, 1:8]),  # of 3×3 the pixel in the middle; of 2×2 all four
        (2, (x[:, :, :8, :8] + x[:, :, 1:, :8] + x[:, :, :8, 1:] + x[:, :, 1:, 1:]) / 4),
    ):
        own = replace(SMALL, channels=2, patch_size=patch_size)
        plain = make_layer(own, (2, 9, 9)).layer.eval()
        joined = make_layer(replace(own, residual=Residual("concatenate")), (2, 9, 9)).layer.eval()
        out = joined(x)
        torch.testing.assert_close(out[:, :2], plain(x))
        for i, j in ((0, 0), (1, 2), (2, 3)):
            window = middles[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            torch.testing.assert_close(out[:, 2:, i, j], window.mean((2, 3)))


def test_output_gates__hands_on_which_atoms_are_near__whatever_was_trained() -> None:
    config = replace(SMALL, output="gates", neighbors=3, residual=Residual("concatenate"))
    layer = make_layer(config, (2, 9, 8))
    x = torch.randn(6, 2, 9, 8)
    read, _ = layer(x)
    assert read.shape == (6, 5 + 2, 4, 3) and layer.shape == (7, 4, 3)
    read, logits = layer.eval().layer(x), layer(x)[1]
    handed = layer(x)[0]
    # by hand: a one for each of the 3 nearest atoms, averaged over windows, times the components
    dictionary = layer.layer.embedding.dictionary
    assert dictionary.components is not None
    near = dictionary.distance(extract_patches(x, 3)).topk(3, largest=False).indices
    gates = torch.zeros(6, 7, 6, 8).scatter_(3, near, 1).permute(0, 3, 1, 2)
    shares = torch.nn.functional.avg_pool2d(gates, 2, ceil_mode=True)
    told = torch.einsum("bnhw,nd->bdhw", shares, dictionary.components)
    torch.testing.assert_close(handed[:, :5], told, atol=1e-5, rtol=1e-5)
    assert torch.equal(handed[:, 5:], read[:, 5:]) and not torch.allclose(read[:, :5], told, atol=0.1)
    known = layer.layer.embedding.ask
    assert known is not None
    torch.testing.assert_close(layer(x, None, known(x))[0], handed)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.equal(layer(x)[0], handed) and not torch.allclose(layer(x)[1], logits)


def test_summed_logits__add_to_those_below__own_do_not() -> None:
    x, below = torch.randn(2, 2, 8, 8), torch.randn(2, 3)
    summed = make_layer(SMALL, (2, 8, 8))
    assert torch.equal(summed(x, below)[1], below)  # the probe starts at zero
    assert torch.equal(summed(x)[1], torch.zeros(2, 3))
    own = make_layer(replace(SMALL, probe=Probe(logits="own")), (2, 8, 8))
    assert torch.equal(own(x, below)[1], torch.zeros(2, 3))


def test_averaged_logits__are_the_layer_s_own_in_training__and_then_the_mean_of_all_layers() -> None:
    x, layers = torch.randn(2, 2, 9, 9), []
    for number, shape in ((1, (2, 9, 9)), (2, (5, 4, 4)), (3, (5, 2, 2))):
        own = replace(SMALL, patch_size=3 if number == 1 else 2, pool=2, probe=Probe(logits="averaged"))
        own = replace(own, pool=1 if number == 3 else 2)
        layers.append(make_layer(own, shape, number=number))
        probe = layers[-1].probe
        assert isinstance(probe, LinearProbe)
        torch.nn.init.normal_(probe.linear.weight)
    alone, inputs = [], x
    for layer in layers:
        layer.eval()
        inputs, logits = layer(inputs)
        alone.append(logits)
    said = [logits for _, logits in FrozenStack(layers).depths(x)]
    for depth in (1, 2, 3):
        torch.testing.assert_close(said[depth - 1], torch.stack(alone[:depth]).mean(0))
    top = layers[-1].train()
    below = FrozenStack(layers[:2])(x)
    assert torch.equal(top(*below)[1], top(below[0])[1])


def test_probed_layer__no_gradient_flows_to_its_input() -> None:
    layer, x = make_layer(SMALL, (2, 9, 8)), torch.randn(4, 2, 9, 8, requires_grad=True)
    assert isinstance(layer.probe, LinearProbe)
    torch.nn.init.normal_(layer.probe.linear.weight)
    (gradient,) = torch.autograd.grad(layer(x)[1].square().sum(), x, allow_unused=True)
    assert gradient is None


def test_probed_layer__can_be_compiled__and_trained() -> None:
    layer = make_layer(SMALL, (2, 9, 8))
    maps = layer.layer.embedding.maps
    assert isinstance(maps, AffineMaps) and isinstance(layer.probe, LinearProbe)
    x, below = torch.randn(4, 2, 9, 8), torch.zeros(4, 3)
    torch.nn.init.normal_(layer.probe.linear.weight)
    patch_layer = layer.layer  # norm and projection are apart in what is compiled
    out = patch_layer.residual(patch_layer.projection(patch_layer.norm(patch_layer.embedding(x))), x, 3, 2)
    expected = torch.autograd.grad((layer.probe(out) + below).square().sum(), maps.weight)[0]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradient = torch.autograd.grad(compiled(x, below)[1].square().sum(), maps.weight)[0]
    torch.testing.assert_close(gradient, expected)


def test_stack_of_two__has_the_shape_that_its_layers_say() -> None:
    shape, layers = (2, 12, 11), []
    for settings in (SMALL, replace(SMALL, patch_size=2, channels=4, residual=Residual("concatenate"))):
        layers.append(make_layer(settings, shape))
        shape = shape_through(settings, shape)
    assert shape == (4 + 5, 2, 2)
    assert FrozenStack(layers)(torch.randn(3, 2, 12, 11))[0].shape == (3, *shape)


WIDE = Layer(patch_size=3, atoms=8, channels=6, pool=2, probe=Probe(pool=2, init="random"))


@pytest.mark.parametrize(
    "changed", [{}, {"mirror": True}, {"gate": Gate("soft")}, {"atoms": 200, "neighbors": 1}], ids=str
)
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("side, wide", [(10, True), (12, False)])  # 8 and 10 positions
def test_what_the_probe_averages__the_layer_averages_at_once_where_windows_fit(
    changed: dict[str, Any], residual: str, side: int, wide: bool, generator: torch.Generator
) -> None:
    layer = make_layer(replace(WIDE, **changed, residual=Residual(residual)), (2, side, side), paired=True)
    x = torch.randn(5, 2, side, side, generator=generator)
    embedding, norm = layer.layer.embedding, layer.layer.norm
    layer.train().said(x)
    averaged = embedding(x) if not wide else torch.nn.functional.avg_pool2d(embedding(x), 2)
    halves = averaged.chunk(2, 1) if layer.mirrored else [averaged]
    variance, mean = torch.var_mean(torch.stack(halves), (0, 1, 3, 4))  # of pairs, or of atoms
    torch.testing.assert_close(norm.running_mean, 0.1 * mean.detach())
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance.detach())
    layer.eval()
    torch.testing.assert_close(layer.said(x), layer(x)[1], rtol=1e-4, atol=1e-5)


def test_what_the_probe_averages__is_not_averaged_before_what_may_not_be_linear(generator: torch.Generator) -> None:
    layer, x = make_layer(WIDE, (2, 10, 10)).eval(), torch.randn(5, 2, 10, 10, generator=generator)
    layer.layer.norm = torch.nn.ReLU()
    assert torch.equal(layer.said(x), layer(x)[1])
    layer.layer.norm, layer.layer.residual = torch.nn.Identity(), lambda out, *_: out.relu()
    assert torch.equal(layer.said(x), layer(x)[1])


@pytest.mark.parametrize("of", ["gate", "embedding", "neither"])
def test_few_near_atoms__go_the_short_way__unless_what_is_defined_elsewhere_would_be_passed_by(of: str) -> None:
    class Halved(Nearest):
        def pooled(self, *given: Any) -> Tensor:
            return super().pooled(*given) / 2

    class Squared(Full):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x).square()

    settings = Layer(patch_size=3, atoms=128, neighbors=2, channels=4, pool=2, norm=Norm("none"))
    layer = make_layer(settings, (3, 9, 8)).layer
    embedding = layer.embedding
    if of == "gate":
        embedding.gate = Halved(3, 2)
    elif of == "embedding":
        embedding.__class__ = Squared
    x = torch.randn(4, 3, 9, 8)
    assert (embedding.gathered(x) is None) == (of != "neither")
    expected = layer.projection(layer.norm(embedding(x)))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
