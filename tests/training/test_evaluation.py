"""How well a stack classifies, counted by hand."""

import pytest
import torch
from torch import nn

from layerwise.data.images import Images, to_input
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.training.evaluation import accuracies, confusion
from tests.nn.layers import SMALL, make_layer
from tests.training.worlds import CPU, numbered


@pytest.fixture
def images() -> Images:
    """More than one batch."""
    return numbered(300, 4, torch.arange(300) % 3, (2, 12, 12))


@pytest.fixture
def stack(images: Images) -> FrozenStack:
    """Two layers, whose probes find all classes about as often."""
    layers, x = [make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))], to_input(images.pixels)
    with torch.no_grad():
        for layer in layers:
            assert isinstance(layer.probe, LinearProbe)
            nn.init.normal_(layer.probe.linear.weight)
            x, logits = layer.eval()(x)
            layer.probe.linear.bias.sub_(logits.mean(0))
    return FrozenStack(layers)


def test_accuracies__are_those_of_each_depth_by_itself(stack: FrozenStack, images: Images) -> None:
    expected = []
    for depth in (1, 2):
        _, logits = stack.below(depth + 1)(to_input(images.pixels))
        assert logits is not None
        expected.append(sum(int(row.argmax()) == i % 3 for i, row in enumerate(logits)) / 300)
    assert expected[0] != expected[1]
    assert accuracies(stack, images, CPU) == pytest.approx(expected)


def test_accuracies__with_mirror_images__sum_the_logits_of_both(stack: FrozenStack, images: Images) -> None:
    # left and right are changed, row by row
    mirrored = torch.stack(
        [torch.stack([image[:, :, 11 - column] for column in range(12)], 2) for image in images.pixels]
    )
    expected = []
    for depth in (1, 2):
        pair = [stack.below(depth + 1)(to_input(pixels))[1] for pixels in (images.pixels, mirrored)]
        assert pair[0] is not None and pair[1] is not None
        expected.append(float(((pair[0] + pair[1]).argmax(1) == images.labels).double().mean()))
    assert accuracies(stack, images, CPU, mirrored=True) == pytest.approx(expected)
    assert accuracies(stack, images, CPU) != pytest.approx(expected)


def test_confusion__counts_by_true_and_predicted_class(stack: FrozenStack, images: Images) -> None:
    images = Images(images.pixels, torch.where(torch.arange(300) < 200, 0, 2))
    _, logits = stack(to_input(images.pixels))
    assert logits is not None
    expected = torch.zeros(3, 3, dtype=torch.long)
    for label, row in zip(images.labels.tolist(), logits, strict=True):
        expected[label, int(row.argmax())] += 1
    assert expected.sum(1).tolist() == [200, 0, 100] and not torch.equal(expected, expected.T)
    assert torch.equal(confusion(stack.layers, images, 3, CPU), expected)
