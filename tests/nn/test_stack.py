"""The frozen stack."""

import copy

import pytest
import torch
from torch import Tensor

from layerwise.config import Layer
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from tests.nn.layers import SMALL, make_layer


@pytest.fixture
def stack() -> FrozenStack:
    """Two layers, whose probes are not zero."""
    layers = [make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))]
    for layer in layers:
        assert isinstance(layer.probe, LinearProbe)
        torch.nn.init.normal_(layer.probe.linear.weight)
    return FrozenStack(layers)


def everything(stack: FrozenStack) -> dict[str, Tensor]:
    return copy.deepcopy(dict(stack.named_parameters()) | dict(stack.named_buffers()))


def test_frozen_stack__does_not_change_while_a_layer_above_trains() -> None:
    stack = FrozenStack([make_layer(SMALL, (2, 12, 12))])
    before = everything(stack)
    layer = make_layer(SMALL, (5, 5, 5))
    optimizer = torch.optim.SGD([*layer.parameters(), *stack.parameters()], lr=0.1, weight_decay=0.1)
    stack.train()
    for _ in range(3):
        features, logits = stack(torch.randn(6, 2, 12, 12))
        _, logits = layer(features, logits)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2]))
        torch.autograd.backward(loss)
        optimizer.step()
    assert not any(module.training for module in stack.modules())
    after = everything(stack)
    assert before.keys() == after.keys() and len(before) > 10
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_frozen_stack__depths_end_in_forward(stack: FrozenStack) -> None:
    x = torch.randn(2, 2, 12, 12)
    outputs = list(stack.depths(x))
    assert [tuple(out.shape[1:]) for out, _ in outputs] == [(5, 5, 5), (5, 2, 2)]
    for ours, last in zip(stack(x), outputs[-1], strict=True):
        assert torch.equal(ours, last)
    assert not any(values.requires_grad for pair in outputs for values in pair)


def test_frozen_stack__sums_the_logits_of_its_layers(stack: FrozenStack) -> None:
    x = torch.randn(2, 2, 12, 12)
    lower, upper = stack.layers
    features, below = lower(x)
    _, alone = upper(features)
    torch.testing.assert_close(stack(x)[1], below + alone)


def test_frozen_stack__below_and_with_layer_take_off_and_put_on(stack: FrozenStack) -> None:
    assert len(stack) == 2
    assert stack.below(2).layers == stack.layers[:1] and not stack.below(1).layers
    layer = make_layer(SMALL, (5, 5, 5))
    assert layer.training and all(parameter.requires_grad for parameter in layer.parameters())
    higher = stack.below(2).with_layer(layer)
    assert higher.layers == [stack.layers[0], layer] and len(stack) == 2
    assert not layer.training and not any(parameter.requires_grad for parameter in layer.parameters())


def test_a_layer_that_begins_a_column__is_given_the_images__and_the_logits_go_on(stack: FrozenStack) -> None:
    lower, upper = stack.layers
    own = Layer(patch_size=5, atoms=8, channels=5, pool=2, input="images")
    first, second = make_layer(own, (2, 12, 12), number=3), make_layer(SMALL, (5, 4, 4), number=4)
    whole, x = FrozenStack([lower, upper, first, second]), torch.randn(2, 2, 12, 12)
    assert isinstance(first.probe, LinearProbe) and isinstance(second.probe, LinearProbe)
    torch.nn.init.normal_(first.probe.linear.weight)
    torch.nn.init.normal_(second.probe.linear.weight)

    handed, said = first(x)
    top, said_above = second(handed)
    _, below = stack(x)
    (_, third), (out, fourth) = list(whole.depths(x))[2:]
    torch.testing.assert_close(out, top)
    torch.testing.assert_close(third, below + said)
    torch.testing.assert_close(fourth, below + said + said_above)
    torch.testing.assert_close(list(whole.outputs(x))[3], second.layer(handed))
    for logits, (_, same) in zip(whole.said(x), whole.depths(x), strict=True):
        torch.testing.assert_close(logits, same)

    assert whole.column.layers == [first, second] and whole.lower.layers == [first]
    assert stack.column.layers == [lower, upper] and whole.shape((2, 12, 12)) == (5, 1, 1)
    for under in (whole.below(3), stack.under(own)):
        given, logits = under(x)
        assert given is x and under.shape((2, 12, 12)) == (2, 12, 12) and not under.column.layers
        torch.testing.assert_close(logits, below)
        assert under.layers == [lower, upper]
    assert whole.below(4).column.layers == [first] and not whole.below(4).anew and not stack.under(SMALL).anew


def test_empty_stack__passes_images_on__without_logits() -> None:
    x = torch.randn(2, 1, 4, 4)
    features, logits = FrozenStack()(x)
    assert features is x and logits is None
    assert len(FrozenStack()) == 0 and not list(FrozenStack().depths(x))


def test_stack__can_be_exported__for_any_number_of_images(stack: FrozenStack) -> None:
    stack = stack.below(2)
    program = torch.export.export(stack, (torch.randn(4, 2, 12, 12),), dynamic_shapes=({0: torch.export.Dim("b")},))
    x = torch.randn(7, 2, 12, 12)
    for exported, expected in zip(program.module()(x), stack(x), strict=True):
        torch.testing.assert_close(exported, expected)
