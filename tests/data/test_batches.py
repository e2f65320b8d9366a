"""The one source of batches."""

from dataclasses import replace

import pytest
import torch

from layerwise.data.batches import ROOM, Batches, View, images_in_room
from layerwise.data.images import Augmentation, Images, to_input
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from tests.nn.layers import SMALL, make_layer


def images(n: int) -> Images:
    return Images(torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 4, 4), torch.arange(n))


def view(n: int) -> View:
    number = torch.arange(n)
    return View(number.half()[:, None, None, None], number[:, None, None, None].float(), number)


def test_batches__shuffled__hold_each_image_at_most_once_and_repeat_with_the_seed() -> None:
    def labels(seed: int) -> list[int]:
        batches = Batches(images(10), 3, shuffle=True, augmentation=Augmentation(False, 0), seed=seed)
        assert len(batches) == 3
        once, again = ([int(i) for _, _, y, _ in batches for i in y] for _ in range(2))
        assert once == again
        return once

    assert len(labels(0)) == len(set(labels(0))) == 9
    assert labels(0) == labels(0) != labels(1)


def test_batches__not_shuffled__are_all_images_in_order() -> None:
    batches = Batches(images(10), 4)
    assert len(batches) == 3
    assert [len(y) for _, _, y, _ in batches] == [4, 4, 2]
    assert torch.cat([y for _, _, y, _ in batches]).tolist() == list(range(10))


def test_batches__of_chosen_images__are_those__in_their_order_or_shuffled() -> None:
    chosen = torch.tensor([7, 2, 5])
    for source in (images(10), view(10)):
        batches = Batches(source, 2, chosen=chosen)
        assert len(batches) == 2 and [y.tolist() for _, _, y, _ in batches] == [[7, 2], [5]]

    def order(seed: int) -> tuple[int, ...]:
        batches = Batches(view(10), 3, shuffle=True, seed=seed, chosen=chosen)
        return tuple(int(i) for _, _, y, _ in batches for i in y)

    orders = {order(seed) for seed in range(5)}
    assert len(orders) > 1 and all(sorted(some) == [2, 5, 7] for some in orders)


def test_batches__of_images__are_input_to_a_first_layer() -> None:
    for shuffle in (True, False):
        for x, logits, labels, _ in Batches(images(10), 4, shuffle=shuffle):
            assert logits is None and x.dtype == torch.float32
            assert torch.equal(x, to_input(labels)[:, None, None, None].expand(-1, 1, 4, 4))
    seen = [x for x, _, _, _ in Batches(images(2), pixels=lambda pixels: pixels.float() + 7)]
    assert torch.equal(seen[0][:, 0, 0, 0], torch.tensor([7.0, 8.0]))


def test_batches__augment_by_their_seed__and_in_order_whatever_their_size() -> None:
    row = torch.arange(4, dtype=torch.uint8)
    source = Images(row.expand(300, 1, 4, 4), torch.zeros(300, dtype=torch.long))

    def pixels(seed: int, size: int = 0) -> torch.Tensor:
        return torch.cat([x for x, _, _, _ in Batches(source, size, augmentation=Augmentation(True, 0), seed=seed)])

    generator, expected, flips = torch.Generator().manual_seed(5), [], Augmentation(True, 0)
    for part in torch.split(source.pixels[:], 256):  # in order, nothing else is drawn
        expected.append(to_input(flips(part, flips.draw(len(part), generator))))
    assert torch.equal(pixels(5), torch.cat(expected))
    for size in (7, 256, 300):
        assert torch.equal(pixels(5, size), pixels(5))
    assert not torch.equal(pixels(5), pixels(6))
    assert {tuple(x[0, 0].tolist()) for x in pixels(5)} == {tuple(to_input(r).tolist()) for r in (row, row.flip(0))}


def test_batches__shuffled__draw_their_augmentation_one_after_another() -> None:
    source = Images(torch.arange(4, dtype=torch.uint8).expand(10, 1, 4, 4), torch.arange(10))
    flips, generator = Augmentation(True, 1), torch.Generator().manual_seed(5)
    order = torch.randperm(10, generator=generator)
    for i, (x, _, labels, _) in enumerate(Batches(source, 4, shuffle=True, augmentation=flips, seed=5)):
        assert torch.equal(labels, order[4 * i : 4 * i + 4])
        assert torch.equal(x, to_input(flips(source.pixels[:4], flips.draw(4, generator))))


def test_images_in_room__is_what_fits__one_at_least_and_256_at_most() -> None:
    assert ROOM == 2**27
    for numbers, together in ((1, 256), (2**17, 256), (2**17 + 1, 255), (2**25, 1), (2**30, 1)):
        assert images_in_room(numbers) == together


def test_batches__without_a_size__have_room_for_what_is_made_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lower, upper = make_layer(SMALL, (2, 12, 12)), make_layer(replace(SMALL, atoms=400), (5, 5, 5))
    source = Images(torch.zeros(100, 2, 12, 12, dtype=torch.uint8), torch.arange(100))
    monkeypatch.setattr("layerwise.data.batches.ROOM", 4 * 288 * 50)
    assert Batches(source).size == Batches(source, stack=FrozenStack([lower])).size == 50  # the image has 288 numbers
    # the upper layer averages 400 atoms at 3×3 positions to 2×2
    assert Batches(source, stack=FrozenStack([lower, upper])).size == Batches(source, above=[lower, upper]).size == 9
    assert [len(y) for _, _, y, _ in Batches(source, above=[lower, upper])] == [9] * 11 + [1]
    assert Batches(view(10), 3).size == 3 and Batches(view(10)).size == 256


def test_batches__of_a_view__shuffle_whole_triples() -> None:
    drawn = list(Batches(view(10), 4, shuffle=True, seed=3))
    assert [len(labels) for _, _, labels, _ in drawn] == [4, 4]
    for x, logits, labels, _ in drawn:
        assert logits is not None and x.dtype == torch.float32
        assert x.flatten().tolist() == logits.flatten().tolist() == labels.tolist()
    seen = torch.cat([labels for _, _, labels, _ in drawn])
    assert len(set(seen.tolist())) == 8 and seen.tolist() != sorted(seen.tolist())
    in_order = torch.cat([labels for _, _, labels, _ in Batches(view(10), 4)])
    assert in_order.tolist() == list(range(10))


def test_batches__of_a_view_and_of_images__have_the_same_order() -> None:
    one, other = (Batches(source, 4, shuffle=True, seed=1) for source in (view(10), images(10)))
    for (_, _, a, _), (_, _, b, _) in zip(one, other, strict=True):
        assert torch.equal(a, b)


def test_batches__are_pushed_through_frozen_layers(generator: torch.Generator) -> None:
    lower, upper = make_layer(SMALL, (2, 12, 12)), make_layer(SMALL, (5, 5, 5))
    for layer in (lower, upper):
        assert isinstance(layer.probe, LinearProbe)
        torch.nn.init.normal_(layer.probe.linear.weight)
    stack = FrozenStack([lower, upper])
    pixels = torch.randint(0, 256, (7, 2, 12, 12), generator=generator, dtype=torch.uint8)
    batches = list(Batches(Images(pixels, torch.arange(7)), 3, stack=stack))
    features, logits = stack(to_input(pixels))
    assert logits is not None
    torch.testing.assert_close(torch.cat([x for x, _, _, _ in batches]), features)
    torch.testing.assert_close(torch.cat([below for _, below, _, _ in batches if below is not None]), logits)
    assert torch.cat([labels for _, _, labels, _ in batches]).tolist() == list(range(7))

    middle, under = stack.below(2)(to_input(pixels))
    assert under is not None
    ((x, below, _, _),) = Batches(
        View(middle.permute(0, 2, 3, 1), under[:, None, None], torch.arange(7)), stack=FrozenStack([upper])
    )
    torch.testing.assert_close(x, features)
    torch.testing.assert_close(below, logits)


def test_view__a_batch_is_of_all_it_holds() -> None:
    ((x, logits, labels, _),) = Batches(view(10), 2, chosen=torch.tensor([7, 2]))
    assert logits is not None
    assert x.flatten().tolist() == logits.flatten().tolist() == labels.tolist() == [7, 2]
