"""What each epoch of a layer is trained on."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from layerwise.config import Features, Layer
from layerwise.data.images import Augmentation, Drawn, to_input
from layerwise.data.views import ViewStore
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.training.inputs import LayerData, sample_inputs
from tests.nn.layers import make_layer
from tests.training.worlds import CPU, world

MOVED = Augmentation(flip=True, crop=2)


@pytest.fixture
def stack() -> FrozenStack:
    """One layer, whose probe is not zero."""
    layer = make_layer(Layer(patch_size=3, atoms=8, channels=4, pool=1), (1, 6, 6), 30)
    assert isinstance(layer.probe, LinearProbe)
    torch.nn.init.normal_(layer.probe.linear.weight)
    return FrozenStack([layer])


@pytest.fixture
def uneven() -> FrozenStack:
    """One layer, whose windows of 3 do not part the 4 positions of a row evenly: no crops can be cut of its output."""
    return FrozenStack([make_layer(Layer(patch_size=3, atoms=8, channels=4, pool=3), (1, 6, 6), 30)])


def made(stack: FrozenStack, views: int, augmentation: Augmentation) -> LayerData:
    store = ViewStore(Features(views=views), world(30, augmentation), 5, CPU)
    store.raise_to(stack)
    return LayerData(stack, store, 8, 9)


def epoch(data: LayerData, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Input, logits below and labels of all batches of one epoch."""
    batches = list(data.epoch(number))
    assert [len(labels) for _, _, labels, _ in batches] == [8, 8, 8]
    below = [logits if logits is not None else torch.empty(0) for _, logits, _, _ in batches]
    return (
        torch.cat([x for x, _, _, _ in batches]),
        torch.cat(below),
        torch.cat([labels for _, _, labels, _ in batches]),
    )


def test_epochs__take_the_stored_views_in_turn(uneven: FrozenStack) -> None:
    data = made(uneven, 3, MOVED)
    views = data.store.train
    assert len(views) == 3 and not torch.equal(views[0].features[:], views[1].features[:])
    for number, view in enumerate([views[0], views[1], views[2], views[0], views[1]]):
        x, below, labels = epoch(data, number)
        assert torch.equal(x.permute(0, 2, 3, 1), view.features[labels].float())
        assert torch.equal(below, view.logits[labels][:, 0, 0])


def test_epochs__cut_crops_of_what_is_stored_of_whole_images(stack: FrozenStack) -> None:
    """Input and logits are those of the stack on the image, shifted as was drawn; each epoch draws anew."""
    data = made(stack, 20, replace(MOVED, shifts="middling"))
    assert [view.margin for view in data.store.train] == [4, 4]  # as it is, and mirrored: 25 crops each
    images, seen, centered = data.store.data.train, [], 0
    for number in range(6):
        x, below, labels = epoch(data, number)
        for input_, logits, label in zip(x, below, labels, strict=True):
            pixels = images.pixels[label : label + 1]
            ways = [(i, j) for i in range(-2, 3) for j in range(-2, 3)]
            drawn = Drawn(torch.tensor(ways).T[:, :, None], torch.full((25, 1), number % 2 == 1))
            made_of, expected = stack(to_input(MOVED(pixels.expand(25, -1, -1, -1), drawn)))
            distance = (made_of - input_).abs().amax((1, 2, 3))
            place = int(distance.argmin())
            assert float(distance[place]) < 5e-3
            torch.testing.assert_close(logits, expected[place], atol=1e-4, rtol=1e-4)
            seen.append((int(label), number % 2, ways[place]))
            centered += abs(ways[place][0]) < 2
    assert len(set(seen)) > 100  # of 144
    assert 0.6 < centered / len(seen) < 0.9  # of the sum of two draws from -1 to 1, 7 in 9 are near the middle


def test_epochs__have_an_order_of_their_own__the_same_each_time(stack: FrozenStack) -> None:
    for data in (made(stack, 2, MOVED), made(FrozenStack(), 2, MOVED)):
        orders = [tuple(epoch(data, number)[2].tolist()) for number in range(4)]
        assert len(set(orders)) == 4
        assert [tuple(epoch(data, number)[2].tolist()) for number in range(4)] == orders


def test_epochs__of_images_augment_them_anew(stack: FrozenStack) -> None:
    for lower in (FrozenStack(), stack):
        data = made(lower, 0, MOVED)
        seen = []
        for number in (0, 1, 0):
            x, _, labels = epoch(data, number)
            seen.append({int(label): image for label, image in zip(labels, x, strict=True)})
        common = seen[0].keys() & seen[1].keys()
        changed = [not torch.equal(seen[0][label], seen[1][label]) for label in common]
        assert sum(changed) > 0.8 * len(changed)  # of 50 ways to flip and shift two are seldom the same
        assert all(torch.equal(seen[0][label], seen[2][label]) for label in seen[0])


def test_without_stored_views__inputs_are_computed_anew__and_are_the_same(stack: FrozenStack) -> None:
    stored, anew = made(stack, 1, Augmentation(False, 0)), made(stack, 0, Augmentation(False, 0))
    assert len(stored.store.train) == 1 and not anew.store.train and not anew.store.val
    expected, logits = stack(to_input(anew.store.data.train.pixels[:]))
    assert logits is not None
    for number in range(2):
        x, below, labels = epoch(anew, number)
        torch.testing.assert_close(x, expected[labels])
        torch.testing.assert_close(below, logits[labels])
        from_store, below_store, same = epoch(stored, number)
        assert torch.equal(same, labels)
        torch.testing.assert_close(from_store, x, atol=2e-3, rtol=2e-3)  # stored with half precision
        torch.testing.assert_close(below_store, below)


@pytest.mark.parametrize("views", [0, 1])
def test_validation__is_of_the_images_as_they_are__in_order(views: int, stack: FrozenStack) -> None:
    data = made(stack, views, MOVED)
    ((x, below, labels, near),) = data.val_dataloader()
    expected, logits = stack(to_input(data.store.data.val.pixels[:]))
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(below, logits)
    assert labels.tolist() == list(range(15)) and near is None


@pytest.mark.parametrize("views", [0, 1])
def test_validation__has_room_for_the_layer_that_is_trained(
    views: int, stack: FrozenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = made(stack, views, MOVED)
    # the layer below makes 8 numbers of each of 16 positions, of which an atom of this one is near at 4
    monkeypatch.setattr("layerwise.data.batches.ROOM", 4 * 128 * 10)
    assert data.val_dataloader().size == (20 if views else 10)  # of 4×4×4 numbers that are stored, or of 128
    data.layer = make_layer(Layer(patch_size=3, atoms=100, channels=4, pool=1), (4, 4, 4), 30)
    assert data.val_dataloader().size == 3  # 1280 / 400


def test_sampled_inputs__are_patches_of_what_the_layer_sees(stack: FrozenStack, generator: torch.Generator) -> None:
    store = made(FrozenStack(), 0, MOVED).store
    patches = sample_inputs(FrozenStack(), store, 2, 100, generator)
    assert patches.shape == (100, 4)
    windows = to_input(store.data.train.pixels[:]).unfold(2, 2, 1).unfold(3, 2, 1).flatten(4).reshape(-1, 4)
    known = {tuple(row) for row in windows.tolist()}
    assert {tuple(row) for row in patches.tolist()} < known and len({tuple(row) for row in patches.tolist()}) == 100
    unit = sample_inputs(FrozenStack(), store, 2, 100, torch.Generator().manual_seed(0), "unit")
    torch.testing.assert_close(unit * 2 - 1, patches)
