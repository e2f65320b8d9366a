"""Stored views of the images: what a layer above the first is trained on."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch

from layerwise import memory
from layerwise.config import Features, Layer, Probe
from layerwise.data.crops import Origin, origins
from layerwise.data.images import Augmentation, Drawn, Images, to_input
from layerwise.data.known import Chosen, Known, Room
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.errors import TrainingFailed
from layerwise.nn.layer import ProbedLayer
from layerwise.nn.probe import LinearProbe
from layerwise.nn.stack import FrozenStack
from layerwise.seeds import fold_seed
from layerwise.training.inputs import LayerData
from tests.nn.layers import make_layer

CPU = torch.device("cpu")


def images(n: int, seed: int) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 2, 9, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 3, (n,), generator=generator))


@pytest.fixture
def data() -> DataSet:
    return DataSet(["a", "b", "c"], images(300, 0), images(20, 1), images(10, 2), Augmentation(flip=True, crop=0))


@pytest.fixture
def stack() -> FrozenStack:
    """Two layers, whose probes are not zero."""
    lower = make_layer(Layer(patch_size=3, atoms=8, channels=5, pool=1), (2, 9, 8))
    upper = make_layer(Layer(patch_size=2, atoms=6, channels=4, pool=2), lower.shape)
    for layer in (lower, upper):
        assert isinstance(layer.probe, LinearProbe)
        torch.nn.init.normal_(layer.probe.linear.weight)
    return FrozenStack([lower, upper])


@pytest.mark.parametrize("crop", [0, 1])
def test_views__are_the_stack_s_output_on_augmented_images(crop: int, data: DataSet, stack: FrozenStack) -> None:
    stack = stack.below(2)  # above it, half precision may decide a near tie otherwise
    if crop:  # windows of 2 do not part 7 positions evenly
        stack = FrozenStack([make_layer(Layer(patch_size=3, atoms=8, channels=5, pool=2), (2, 9, 8))])
        data = replace(data, augmentation=Augmentation(flip=True, crop=crop))
    store = ViewStore(Features(views=2), data, 7, CPU)
    store.raise_to(stack)
    d, h, w = stack.layers[-1].shape
    assert [tuple(view.features.shape) for view in store.train] == [(300, h, w, d)] * 2
    for number, view in enumerate(store.train):
        generator = torch.Generator().manual_seed(fold_seed(7, number, 1))
        pixels = torch.cat(
            [
                data.augmentation(part, data.augmentation.draw(len(part), generator))
                for part in torch.split(data.train.pixels[:], 256)
            ]
        )
        features, logits = stack(to_input(pixels))
        torch.testing.assert_close(view.features[:].float().permute(0, 3, 1, 2), features, atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(view.logits[:][:, 0, 0], logits, atol=1e-4, rtol=1e-4)
        assert torch.equal(view.labels, data.train.labels)
    assert not torch.equal(store.train[0].features[:], store.train[1].features[:])
    features, logits = stack(to_input(data.val.pixels[:]))
    torch.testing.assert_close(store.val[0].features[:].permute(0, 3, 1, 2), features)
    torch.testing.assert_close(store.val[0].logits[:][:, 0, 0], logits)


@pytest.mark.parametrize("crop", [0, 1])
def test_views__raised_layer_by_layer__are_those_made_at_once(crop: int, data: DataSet, stack: FrozenStack) -> None:
    """A process that starts at layer 3 trains on what one that trained layer 2 trains on, bit for bit.

    Crops can be cut of what the lower layer makes, not of what the upper one does.
    """
    data = replace(data, augmentation=Augmentation(flip=True, crop=crop))
    stepwise, at_once = (ViewStore(Features(views=3), data, 7, CPU) for _ in range(2))
    stepwise.raise_to(FrozenStack())
    assert not stepwise.train and not stepwise.val
    stepwise.raise_to(stack.below(2))
    stepwise.raise_to(stack)
    at_once.raise_to(stack)
    for a, b in zip(stepwise.train + stepwise.val, at_once.train + at_once.val, strict=True):
        assert torch.equal(a.features[:], b.features[:])
        assert torch.equal(a.logits[:], b.logits[:])


@pytest.mark.parametrize("output", ["channels", "gates"])
def test_views__to_train_averaged_layers__hold_the_same_features__and_logits_of_no_class(
    output: Literal["channels", "gates"], data: DataSet, capsys: pytest.CaptureFixture[str]
) -> None:
    stores, seen = [], to_input(data.val.pixels[:])
    for logits in (Probe(), Probe(logits="averaged")):
        lower = make_layer(Layer(patch_size=3, atoms=8, channels=5, pool=1, output=output, probe=logits), (2, 9, 8))
        own = Layer(patch_size=2, atoms=6, channels=4, pool=1, probe=logits)
        stack = FrozenStack([lower, make_layer(own, lower.shape, number=2)])
        for layer in stack.layers:
            assert isinstance(layer.probe, LinearProbe)
            torch.nn.init.normal_(layer.probe.linear.weight)
        stores.append(store := ViewStore(Features(views=2), data, 7, CPU))
        store.raise_to(stack)
        torch.testing.assert_close(store.val[0].logits[:][:, 0, 0], stack(seen)[1])
    summed, averaged = stores
    for one, other in zip(summed.train, averaged.train, strict=True):
        assert torch.equal(one.features[:], other.features[:]) and one.logits.shape[-1] == 3
        assert other.logits.shape == (300, 1, 1, 0)
    d, h, w = stack.layers[-1].shape
    assert averaged.bytes == 2 * 300 * 2 * d * h * w + 20 * 4 * (d * h * w + 3)
    tight = ViewStore(Features(views=2, gigabytes=averaged.bytes / 1e9), data, 7, CPU)
    tight.raise_to(stack)
    assert len(tight.train) == 2 and "gigabytes" not in capsys.readouterr().out  # nothing is kept free for logits


@pytest.fixture
def columns(stack: FrozenStack) -> FrozenStack:
    """Two columns of two layers, and one of another."""
    first = make_layer(Layer(patch_size=2, atoms=8, channels=5, pool=1, input="images"), (2, 9, 8), number=3)
    second = make_layer(Layer(patch_size=2, atoms=6, channels=4, pool=1), first.shape, number=4)
    third = make_layer(Layer(patch_size=4, atoms=6, channels=3, pool=1, input="images"), (2, 9, 8), number=5)
    for layer in (first, second, third):
        assert isinstance(layer.probe, LinearProbe)
        torch.nn.init.normal_(layer.probe.linear.weight)
    return FrozenStack([*stack.layers, first, second, third])


def test_views__of_a_column__are_of_its_layers_alone__and_what_others_say_is_joined(
    data: DataSet, columns: FrozenStack
) -> None:
    store, x = ViewStore(Features(views=2), data, 7, CPU), to_input(data.val.pixels[:])
    store.raise_to(columns.below(2))
    assert store.train and store.said is None
    store.raise_to(columns.below(3))
    assert not store.train and not store.val and store.joined == 2 and store.said is not None
    torch.testing.assert_close(store.said, columns.below(3)(x)[1])
    store.raise_to(columns.below(4))
    below, logits = columns.below(4)(x)
    torch.testing.assert_close(store.val[0].features[:].permute(0, 3, 1, 2), below)
    torch.testing.assert_close(store.val[0].logits[:][:, 0, 0], logits)
    alone = ViewStore(Features(views=2), data, 7, CPU)
    alone.raise_to(FrozenStack(columns.layers[2:3]))
    assert all(torch.equal(a.features[:], b.features[:]) for a, b in zip(store.train, alone.train, strict=True))
    store.raise_to(columns.below(6))
    torch.testing.assert_close(store.val[0].logits[:][:, 0, 0], columns(x)[1])
    store.raise_to(columns.below(2))  # and back
    assert store.said is None and store.joined == 0 and store.train[0].shape == (5, 7, 6)


@pytest.mark.parametrize("views", [0, 2])
def test_views__of_a_column__raised_layer_by_layer__are_those_made_at_once(
    views: int, data: DataSet, columns: FrozenStack
) -> None:
    stepwise, at_once = (ViewStore(Features(views=views), data, 7, CPU) for _ in range(2))
    for number in range(1, 7):
        stepwise.raise_to(columns.below(number))
    at_once.raise_to(columns.below(6))
    assert stepwise.said is not None and at_once.said is not None and torch.equal(stepwise.said, at_once.said)
    assert len(stepwise.train) == len(at_once.train) == views
    for a, b in zip(stepwise.train + stepwise.val, at_once.train + at_once.val, strict=True):
        assert torch.equal(a.features[:], b.features[:]) and torch.equal(a.logits[:], b.logits[:])
    inputs = LayerData(columns, at_once, 50, 9)
    logits = torch.cat([below for _, below, _, _ in inputs.val_dataloader() if below is not None])
    torch.testing.assert_close(logits, columns(to_input(data.val.pixels[:]))[1])
    assert next(iter(inputs.epoch(0)))[0].shape[1:] == (3, 6, 5)


def known_of(store: ViewStore, ask: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Known]:
    """What a layer on top of the store asks in its epochs."""
    sources = {f"view {i}": view for i, view in enumerate(store.train)} | {"validation": store.val[0]}
    known = {name: Known(ask, len(view), Room("layer", 1e9)) for name, view in sources.items()}
    for name, view in sources.items():
        inputs = view.features[:].float().permute(0, 3, 1, 2)
        known[name](Chosen(torch.arange(len(view))), inputs, torch.empty(0))
    return known


def test_views__made_with_what_the_layer_asked_of_their_inputs__are_the_same_bits(
    data: DataSet, stack: FrozenStack
) -> None:
    anew, asked, misled, narrow = (ViewStore(Features(views=2), data, 7, CPU) for _ in range(4))
    ask = stack.layers[-1].layer.embedding.ask
    assert ask is not None
    for store in (anew, asked, misled, narrow):
        store.raise_to(stack.below(2))
    asked.known = known_of(asked, ask)
    misled.known, narrow.known = known_of(misled, lambda x: ask(-x)), known_of(narrow, lambda x: ask(-x))
    anew.raise_to(stack)
    little = Features(views=2, gigabytes=(anew.bytes + 1) / 1e9)  # no room beside the views
    narrow.plans = replace(narrow.plans, config=little)
    for store in (asked, misled, narrow):
        store.raise_to(stack)
        assert not store.known
    for first, second, third, fourth in zip(*(s.train + s.val for s in (anew, asked, misled, narrow)), strict=True):
        assert torch.equal(first.features, second.features) and torch.equal(first.logits, second.logits)
        assert not torch.equal(first.features, third.features)
        assert torch.equal(first.features, fourth.features)


def test_views__are_the_same_bits__whatever_size_of_batch_the_room_is_for(
    data: DataSet, stack: FrozenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stepwise, at_once = (ViewStore(Features(views=2), data, 7, CPU) for _ in range(3))
    whole.raise_to(stack)
    # the lower layer makes 8×7×6 numbers of an image, of whose output, 5×7×6 numbers, the upper one makes less
    monkeypatch.setattr("layerwise.data.batches.ROOM", 4 * 336 * 20)  # 20 images in the lower, 32 in the upper one
    sizes: dict[str, set[int]] = {"lower": set(), "upper": set()}
    for name, layer in zip(sizes, stack.layers, strict=True):
        layer.layer.register_forward_hook(
            lambda _, given, __, name=name: None if given[0].is_meta else sizes[name].add(len(given[0]))
        )
    for below in (stack.below(2), stack):
        stepwise.raise_to(below)
    at_once.raise_to(stack)
    assert sizes == {"lower": {20}, "upper": {32, 300 % 32, 20}}  # 300 images, and 20 for validation
    for a, b, c in zip(*(store.train + store.val for store in (whole, stepwise, at_once)), strict=True):
        assert torch.equal(b.features, c.features) and torch.equal(b.logits, c.logits)
        torch.testing.assert_close(a.features, b.features, atol=1e-5, rtol=2e-3)  # as the views are the same


def test_views__fit_the_room_given__and_say_so(
    data: DataSet, stack: FrozenStack, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = torch.tensor(stack.layers[-1].shape).prod().item()
    view, validation = 300 * (2 * numbers + 12), 20 * (4 * numbers + 12)
    store = ViewStore(Features(views=4, gigabytes=(2.5 * view + validation) / 1e9), data, 0, CPU)
    store.raise_to(stack)
    assert len(store.train) == 2
    assert "more than --features.gigabytes" in (message := capsys.readouterr().out) and "storing 2" in message

    ViewStore(Features(views=2, gigabytes=(2.5 * view + validation) / 1e9), data, 0, CPU).raise_to(stack)
    assert "gigabytes" not in capsys.readouterr().out  # there is room for all

    store = ViewStore(Features(views=4, gigabytes=1e-6), data, 0, CPU)
    store.raise_to(stack)
    assert not store.train and not store.val
    assert "computing them anew in every step, which is slower" in capsys.readouterr().out


EVEN = [
    Layer(patch_size=3, atoms=8, channels=6, pool=2),
    Layer(patch_size=3, atoms=6, channels=4, pool=2),
    Layer(patch_size=2, atoms=6, channels=4, pool=1),
]
"""layers whose windows part the positions of 18×18 images, and of their crops, evenly"""


def even(mirror: bool, output: Literal["channels", "gates"] = "channels") -> tuple[DataSet, FrozenStack]:
    """Images of 18×18, and three layers upon them, whose probes are not zero."""
    shape, layers = (2, 18, 18), list[ProbedLayer]()
    for own in EVEN:
        layer = make_layer(replace(own, mirror=mirror, output=output), shape, paired=bool(layers))
        assert isinstance(layer.probe, LinearProbe)
        torch.nn.init.normal_(layer.probe.linear.weight)
        layers.append(layer)
        shape = layer.shape
    generator = torch.Generator().manual_seed(3)
    made = []
    for count in (40, 10, 10):
        pixels = torch.randint(0, 256, (count, 2, 18, 18), generator=generator, dtype=torch.uint8)
        made.append(Images(pixels, torch.arange(count) % 3))
    augmentation = Augmentation(flip=True, crop=4)
    return DataSet(["a", "b", "c"], made[0], made[1], made[2], augmentation), FrozenStack(layers)


@pytest.mark.parametrize("output", ["channels", "gates"])
@pytest.mark.parametrize("mirror", [True, False])
def test_views__of_whole_images__hold_what_the_stack_makes_of_their_crops(
    mirror: bool, output: Literal["channels", "gates"]
) -> None:
    data, stack = even(mirror, output)
    store = ViewStore(Features(views=30), data, 7, CPU, mirror)
    sides, moved = [False] if mirror else [False, True], Augmentation(flip=True, crop=4)
    shifts = [(top, left, flipped) for flipped in sides for top in range(-4, 5) for left in range(-4, 5)]
    each = [(torch.tensor(at)[:, None, None].expand(2, 4, 1), torch.full((4, 1), flip)) for *at, flip in shifts]
    crops = [moved(data.train.pixels[:4], Drawn(*one)) for one in each]
    x = to_input(torch.cat(crops))
    for depth in (1, 2, 3):
        store.raise_to(stack.below(depth + 1))
        outs, logits = (each.unflatten(0, (len(shifts), 4)) for each in stack.below(depth + 1)(x))
        step, seen = (2, 4, 4)[depth - 1], 0
        for view in store.train:
            m, side = view.margin, (view.features.shape[1] - view.margin)
            for i, j in ((0, 0), (m, 0), (m // 2, m)):
                part = view.features[:][:4, i : i + side, j : j + side].float().permute(0, 3, 1, 2)
                off = ((outs - part).abs() / outs.std(dim=(1, 2, 3, 4), keepdim=True)).flatten(1)
                # a near tie of gates may be decided in another way once their input is rounded
                off = off.mean(1) if output == "channels" else off.quantile(0.9, 1)
                best = int(off.argmin())
                assert off[best] < 3e-3, (depth, i, j, off[best], shifts[best])
                alike = torch.isclose(view.logits[:][:4, i, j], logits[best], atol=0.05, rtol=0.05).all(1)
                assert int(alike.sum()) >= (4 if output == "channels" else 3)
            seen += (m + 1) ** 2
        assert seen >= 30  # crops, as many as are wanted
        assert max(view.margin for view in store.train) == 8 // step


def test_views__of_whole_images__raised_layer_by_layer__are_those_made_at_once() -> None:
    data, stack = even(True)
    stepwise, at_once = (ViewStore(Features(views=30), data, 7, CPU, True) for _ in range(2))
    for depth in (1, 2, 3):
        stepwise.raise_to(stack.below(depth + 1))
    at_once.raise_to(stack)
    assert len(stepwise.train) == len(at_once.train) > 1
    for a, b in zip(stepwise.train + stepwise.val, at_once.train + at_once.val, strict=True):
        assert torch.equal(a.features[:], b.features[:]) and torch.equal(a.logits[:], b.logits[:])
        assert a.margin == b.margin


def test_views__that_are_cut_at_one_place_alone__are_cut_where_no_other_is() -> None:
    """Of images that are shifted by one pixel at most, and windows of 2: but for one view, no crop can be shifted."""
    data, stack = even(False)
    data = replace(data, augmentation=Augmentation(flip=True, crop=1))
    store, first = ViewStore(Features(views=14), data, 7, CPU), stack.below(2)
    store.raise_to(first)
    assert [view.margin for view in store.train] == [1, 1, 0, 0, 0, 0, 0, 0]
    shifts = [(top, left, flipped) for flipped in (False, True) for top in (-1, 0, 1) for left in (-1, 0, 1)]
    moved = data.augmentation
    drawn = [Drawn(torch.tensor(at)[:, None, None].expand(2, 8, 1), torch.full((8, 1), flip)) for *at, flip in shifts]
    outs, _ = first(to_input(torch.cat([moved(data.train.pixels[:8], one) for one in drawn])))
    outs, seen = outs.unflatten(0, (len(shifts), 8)), list[int]()
    for view in store.train:
        for i, j in ((0, 0), (view.margin, view.margin)):
            part = view.features[:][:8, i : i + 8, j : j + 8].float().permute(0, 3, 1, 2)
            off = (outs - part).abs().amax((1, 2, 3, 4))
            assert off.min() < 0.01
            seen.append(int(off.argmin()))
    assert len(set(seen)) == 2 * 2 + 6


def test_views__that_are_there__are_not_taken_for_those_of_another_plan() -> None:
    """Some of them have room for as many crops, but are other parts of the images."""
    data, stack = even(True)
    many, few = (ViewStore(Features(views=views), data, 7, CPU, True) for views in (26, 10))
    many.raise_to(stack.below(3))
    many.plans = few.plans
    many.raise_to(stack)
    few.raise_to(stack)
    assert [view.margin for view in many.train] == [view.margin for view in few.train] and len(few.train) > 1
    for a, b in zip(many.train, few.train, strict=True):
        assert torch.equal(a.features[:], b.features[:])


@pytest.mark.parametrize("output", ["channels", "gates"])
def test_views__of_whole_images__made_with_what_the_layer_asked__are_the_same_bits(
    output: Literal["channels", "gates"],
) -> None:
    data, stack = even(True, output)
    anew, asked, misled = (ViewStore(Features(views=30), data, 7, CPU, True) for _ in range(3))
    ask = stack.layers[1].layer.embedding.ask
    assert ask is not None
    for store in (anew, asked, misled):
        store.raise_to(stack.below(2))
    asked.known, misled.known = known_of(asked, ask), known_of(misled, lambda x: ask(-x))
    for store in (anew, asked, misled):
        store.raise_to(stack.below(3))
    for first, second, third in zip(anew.train, asked.train, misled.train, strict=True):
        assert torch.equal(first.features[:], second.features[:]) and torch.equal(first.logits[:], second.logits[:])
        assert not torch.equal(first.features[:], third.features[:])


def test_views__fewer_where_there_is_little_room__and_of_augmented_images_where_that_is_too_little(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, stack = even(True)
    lower, (d, h, w) = stack.below(2), stack.layers[0].shape
    validation = 10 * 4 * (d * h * w + 3)
    whole = 40 * (2 * d * (h + 4) * (w + 4) + 4 * 3 * 25)
    once = 40 * (2 * d * h * w + 4 * 3)
    assert once < whole
    for room, margins, told in (
        (whole + validation, [4], "storing 1"),
        (whole - 1 + validation, [0] * ((whole - 1) // once), f"storing {(whole - 1) // once}"),
        (validation, [], "computing them anew in every step"),
    ):
        store = ViewStore(Features(views=30, gigabytes=room / 1e9), data, 7, CPU, True)
        store.raise_to(lower)
        assert [view.margin for view in store.train] == margins
        assert told in capsys.readouterr().out


def test_origins__take_windows_that_begin_elsewhere_once_more_crops_are_wanted() -> None:
    assert origins([8], 2, 25) == [Origin(0, 0, 0, 4)]
    assert origins([8], 2, 26) == [Origin(0, 0, 0, 4), Origin(0, 1, 1, 3)]
    assert origins([8, 8], 2, 1) == [Origin(0, 0, 0, 4), Origin(1, 0, 0, 4)]  # both an image and its mirror image
    assert origins([4, 3], 2, 14) == [Origin(0, 0, 0, 2), Origin(1, 0, 0, 1), Origin(0, 1, 1, 1), Origin(1, 1, 1, 1)]
    assert origins([0, 0], 2, 9) == [Origin(0, 0, 0, 0), Origin(1, 0, 0, 0)]  # there is no more


@pytest.mark.parametrize("source", ["images", "views"])
def test_views__for_which_there_is_no_room__are_computed_anew__and_it_is_said_once(
    source: str,
    data: DataSet,
    stack: FrozenStack,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    none, store = (ViewStore(Features(views=views), data, 7, CPU) for views in (0, 2))
    none.raise_to(stack)
    if source == "views":
        store.raise_to(stack.below(2))
    monkeypatch.setattr(memory, "total", lambda: 0)  # so that all that is kept goes to a file
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    capsys.readouterr()
    try:
        store.raise_to(stack)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not store.train and not store.val and store.bytes == 0
    told = f"layer 3: there is no room for 2 views of the features ({os.strerror(errno.EFBIG)}): computing them anew"
    assert capsys.readouterr().out.count(told) == 1
    made = [LayerData(stack, one, 50, 9).epoch(1) for one in (none, store)]
    for mine, theirs in zip(*made, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine[:3], theirs[:3], strict=True))
    store.raise_to(stack)
    assert len(store.train) == 2 and len(store.val) == 1


def test_views__of_images_that_are_not_augmented__are_one(data: DataSet, stack: FrozenStack) -> None:
    plain = DataSet(data.classes, data.train, data.val, data.test, Augmentation(flip=False, crop=0))
    store = ViewStore(Features(views=4), plain, 0, CPU)
    store.raise_to(stack)
    assert len(store.train) == 1


@pytest.mark.parametrize(
    "factor, told",
    [
        (
            1e6,
            r"layer 1: its output reaches \S+, beyond 65504, the highest torch.float16, in which .*--features.views 0",
        ),
        (float("nan"), r"layer 1: its output is not finite; train it again with --restart_from 1"),
    ],
)
def test_views__that_float16_cannot_hold__are_not_made(
    factor: float, told: str, data: DataSet, stack: FrozenStack
) -> None:
    layer = stack.layers[0].layer
    with torch.no_grad():
        next(layer.projection.parameters()).mul_(
            factor / float(stack.below(2)(to_input(data.train.pixels[:]))[0].abs().max())
        )
    store = ViewStore(Features(views=2), data, 7, CPU)
    with pytest.raises(TrainingFailed, match=told):
        store.raise_to(stack)
    store = ViewStore(Features(views=0), data, 7, CPU)
    store.raise_to(stack)
    assert store.train == []


def test_views__show_a_step_for_every_batch__and_end(
    data: DataSet, stack: FrozenStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, int]] = []

    def counted(steps: range, what: str) -> Iterator[int]:
        yield from steps
        shown.append((what, len(steps)))  # only where all of them were asked for

    monkeypatch.setattr("layerwise.data.views.progress", counted)
    ViewStore(Features(views=3), data, 7, CPU).raise_to(stack)
    # 300 images are two batches, 20 are one
    assert shown == [("layer 3: features", 6), ("layer 3: features for validation", 1)]


@pytest.mark.parametrize("missing, count", [(0, 2), (1, 1)])
def test_views__take_room_to_the_byte(missing: int, count: int, data: DataSet, stack: FrozenStack) -> None:
    numbers = torch.tensor(stack.layers[-1].shape).prod().item()
    # features of 2 bytes for training, of 4 for validation, and three logits of 4 bytes of each image
    room = 2 * 300 * (2 * numbers + 12) + 20 * (4 * numbers + 12) - missing
    store = ViewStore(Features(views=4, gigabytes=(room + 0.5) / 1e9), data, 0, CPU)
    store.raise_to(stack)
    assert len(store.train) == count and len(store.val) == 1
