"""How well a stack classifies, counted by hand."""

import pytest
import torch
from torch import nn

from layerwise.config import Layer
from layerwise.data.images import Images, to_input
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.training.evaluation import Evaluation, evaluate, evaluate_alone, evaluate_mirrored
from tests.conftest import growth
from tests.nn.layers import SMALL, make_layer
from tests.training.worlds import CPU, numbered


@pytest.fixture
def images() -> Images:
    """More than one batch."""
    return numbered(300, 4, torch.arange(300) % 3, (2, 12, 12))


@pytest.fixture
def stack(images: Images) -> FrozenStack:
    """Two layers, whose probes find all classes about as often."""
    layers, x = [make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))], to_input(images.pixels[:])
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
        _, logits = stack.below(depth + 1)(to_input(images.pixels[:]))
        assert logits is not None
        expected.append(sum(int(row.argmax()) == i % 3 for i, row in enumerate(logits)) / 300)
    assert expected[0] != expected[1]
    assert evaluate(stack, images, CPU).accuracies == pytest.approx(expected)


def test_accuracies__with_mirror_images__sum_the_logits_of_both(stack: FrozenStack, images: Images) -> None:
    # left and right are changed, row by row
    mirrored = torch.stack(
        [torch.stack([image[:, :, 11 - column] for column in range(12)], 2) for image in images.pixels[:]]
    )
    expected = []
    for depth in (1, 2):
        pair = [stack.below(depth + 1)(to_input(pixels))[1] for pixels in (images.pixels[:], mirrored)]
        assert pair[0] is not None and pair[1] is not None
        expected.append(float(((pair[0] + pair[1]).argmax(1) == images.labels).double().mean()))
    alone, both = evaluate_mirrored(stack, images, CPU)
    assert both.accuracies == pytest.approx(expected)
    assert alone.accuracies == evaluate(stack, images, CPU).accuracies != pytest.approx(expected)


@pytest.mark.parametrize("logits", ["summed", "averaged", "own"])
def test_accuracies__alone__are_those_of_each_layer_s_probe(stack: FrozenStack, images: Images, logits: str) -> None:
    x, expected = to_input(images.pixels[:]), []
    for number, layer in enumerate(stack.layers, 1):
        layer.logits, layer.number = logits, number
        said = layer.probe(layer.layer(x))  # nothing of the layers below is in it
        expected.append(float((said.argmax(1) == images.labels).double().mean()))
        x, _ = layer(x)
    whole, alone = evaluate_alone(stack, images, CPU)
    assert alone.accuracies == pytest.approx(expected)
    assert whole.accuracies == evaluate(stack, images, CPU).accuracies
    assert (whole.accuracies == alone.accuracies) == (logits == "own")


def test_confusion__counts_by_true_and_predicted_class(stack: FrozenStack, images: Images) -> None:
    images = Images(images.pixels, torch.where(torch.arange(300) < 200, 0, 2))
    _, logits = stack(to_input(images.pixels[:]))
    assert logits is not None
    expected = torch.zeros(3, 3, dtype=torch.long)
    for label, row in zip(images.labels.tolist(), logits, strict=True):
        expected[label, int(row.argmax())] += 1
    assert expected.sum(1).tolist() == [200, 0, 100] and not torch.equal(expected, expected.T)
    assert torch.equal(evaluate(stack, images, CPU).confusion(), expected)


SAID = Evaluation(
    labels=torch.tensor([0, 0, 1, 2]),
    ranked=torch.tensor([[[1, 0], [1, 2], [1, 0], [0, 1]], [[0, 1], [2, 0], [1, 2], [1, 2]]]),
    shares=torch.tensor([[[0.5, 0.25]] * 4, [[1.0, 0.0], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]]),
    classes=4,
)
"""four images of three of four classes, at two depths"""


def test_top__counts_the_true_class_among_the_likeliest() -> None:
    assert len(SAID) == 4
    assert SAID.accuracies == SAID.top(1) == [0.25, 0.5]
    assert SAID.top(2) == [0.5, 1.0]


def test_by_class__is_the_share_of_its_images_and_none_without_one() -> None:
    assert SAID.by_class() == [0.5, 1.0, 0.0, None]
    assert SAID.by_class(1) == [0.0, 1.0, 0.0, None]


def test_confusion__of_a_depth__is_that_of_its_likeliest_classes() -> None:
    assert SAID.confusion(2).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert torch.equal(SAID.confusion(2), SAID.confusion())
    assert SAID.confusion(1)[0].tolist() == [0, 2, 0, 0]


def test_confusions__are_the_mistakes_from_the_most_frequent() -> None:
    assert SAID.confusions(1) == [(0, 1, 2), (2, 0, 1)]
    assert SAID.confusions() == [(0, 2, 1), (2, 1, 1)]
    assert SAID.confusion(1)[1, 1] == 1  # which is none, and is left as it is


def test_standard_errors__are_those_of_shares() -> None:
    # of 1/4 and of 1/2 of four images
    assert SAID.standard_errors == pytest.approx([(3 / 64) ** 0.5, 0.25])


def test_calibration_error__is_the_distance_of_confidence_from_accuracy() -> None:
    # depth 1: all four at 0.5, one right; depth 2: one at 1, right, and three at 0.75, one of them right
    assert SAID.calibration_error(1) == pytest.approx(0.25)
    assert SAID.calibration_error() == pytest.approx(0.75 * (0.75 - 1 / 3))


def test_evaluate__ranks_classes_by_their_probability(stack: FrozenStack, images: Images) -> None:
    said = evaluate(stack, images, CPU)
    _, logits = stack(to_input(images.pixels[:]))
    assert logits is not None and said.classes == 3
    for ranked, shares, row in zip(said.ranked[1], said.shares[1], logits.exp(), strict=True):
        order = sorted(range(3), key=lambda i: -float(row[i]))
        assert ranked.tolist() == order
        assert shares.tolist() == pytest.approx([float(row[i] / row.sum()) for i in order], rel=1e-4)


def test_evaluate__keeps_as_many_classes_as_are_asked_for(stack: FrozenStack, images: Images) -> None:
    assert evaluate(stack, images, CPU, ranks=2).ranked.shape == (2, 300, 2)
    assert evaluate(stack, images, CPU, ranks=9).ranked.shape == (2, 300, 3)


def test_evaluate__takes_room_for_a_few_images__not_for_256(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = FrozenStack([make_layer(Layer(patch_size=3, atoms=256, channels=4, pool=1), (1, 66, 66))])
    images = numbered(48, 4, torch.arange(48) % 3, (1, 66, 66))  # 4.2 MB each, once embedded: 200 MB in all
    whole = evaluate(stack, images, CPU)
    monkeypatch.setattr("layerwise.data.batches.ROOM", 1 << 24)
    found = list[Evaluation]()
    assert growth(lambda: found.append(evaluate(stack, images, CPU))) < 100e6
    assert torch.equal(found[0].ranked, whole.ranked)
    torch.testing.assert_close(found[0].shares, whole.shares)
