"""What is known of inputs that come again is what would be found anew."""

import errno
import os
import resource

import pytest
import torch
from torch import Tensor

from layerwise import memory, ops
from layerwise.config.choices import BORDERS
from layerwise.data import known
from layerwise.data.images import Augmentation, to_input
from layerwise.data.known import Chosen, Known, KnownCrops, Room

SCORER = torch.randn(19, 40, generator=torch.Generator().manual_seed(1))


class Asked:
    """Which 4 of 40 atoms are near patches of 3×3 of two channels; counts the images that it is asked of."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return ops.near(x, SCORER, 3, 4)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("flip", [True, False])
def test_known_crops__are_those_of_the_augmented_images(border: str, flip: bool, generator: torch.Generator) -> None:
    pixels = torch.randint(0, 256, (6, 2, 7, 9), generator=generator, dtype=torch.uint8)
    augmentation, ask = Augmentation(flip, 2, border), Asked()
    crops = KnownCrops(ask, 6, Room("layer 1", 1e9), augmentation)
    for _ in range(40):
        index = torch.randperm(6, generator=generator)[:4]
        drawn = augmentation.draw(4, generator)
        x = to_input(augmentation(pixels[index], drawn))
        near = crops(Chosen(index, drawn), x, pixels[index])
        assert near is not None and torch.equal(near, ops.near(x, SCORER, 3, 4))
    assert ask.images == (12 if flip else 6)  # each once, and once mirrored


def test_known__asks_of_each_input_once(generator: torch.Generator) -> None:
    inputs, ask = torch.randn(10, 2, 6, 5, generator=generator), Asked()
    own = Known(ask, 10, Room("layer 2", 1e9))
    for index in ([3, 1, 4], [1, 5, 9], [9, 3, 1], [0, 2, 6, 7, 8]):
        rows = torch.tensor(index)
        near = own(Chosen(rows), inputs[rows], torch.empty(0))
        assert near is not None and torch.equal(near, ops.near(inputs[rows], SCORER, 3, 4))
    assert ask.images == 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("place", ["cuda", "cpu"])
def test_known__comes_to_where_the_inputs_are__wherever_it_is_kept(
    place: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "place_for", lambda size, device: torch.device(place))
    images, scorer = torch.randint(0, 256, (9, 2, 7, 9), generator=generator, dtype=torch.uint8), SCORER.cuda()
    augmentation, room = Augmentation(True, 2), Room("layer 1", 1e9)

    def ask(x: Tensor) -> Tensor:
        return ops.near(x, scorer, 3, 4)

    index, drawn = torch.tensor([5, 1, 8, 2]), augmentation.draw(4, generator)
    plain, moved = to_input(images[index]).cuda(), to_input(augmentation(images[index], drawn)).cuda()
    for own, x in ((Known(ask, 9, room), plain), (KnownCrops(ask, 9, room, augmentation), moved)):
        for _ in range(2):
            near = own(Chosen(index, drawn).known_to(x.device), x, images[index])
            assert near is not None and near.device == x.device and torch.equal(near, ask(x))


def test_known__where_there_is_no_room__says_so_once_and_knows_nothing(
    generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, ask = torch.randn(10, 2, 6, 5, generator=generator), Asked()
    size = 10 * 4 * 3 * 5  # inputs, positions, bytes of 40 bits
    for limit, known_of in ((size, [True, False]), (size - 1, [False, False])):
        room, found = Room("layer 2", limit), []
        for own in (Known(ask, 10, room), Known(ask, 10, room)):
            first, again = (own(Chosen(torch.arange(3)), inputs[:3], torch.empty(0)) for _ in range(2))
            assert (first is None) == (again is None)
            found.append(first is not None)
        assert found == known_of
        out = capsys.readouterr().out
        assert out.count("layer 2: which atoms are near takes") == 1 and "--features.gigabytes" in out


def test_known__where_a_file_finds_no_room__goes_on_without(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "total", lambda: 0)  # so that all that is kept goes to a file
    inputs = torch.randn(3, 2, 6, 5, generator=generator)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        found = Known(Asked(), 3, Room("layer 3", 1e9))(Chosen(torch.arange(3)), inputs, torch.empty(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found is None
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and f"there is no room for them ({os.strerror(errno.EFBIG)})" in out
    found = Known(Asked(), 3, Room("layer 3", 1e9))(Chosen(torch.arange(3)), inputs, torch.empty(0))
    assert found is not None and torch.equal(found, ops.near(inputs, SCORER, 3, 4))


def test_pays__where_epochs_ask_for_more_than_there_is() -> None:
    # 28×28 positions of 32 pixels; with borders 36×36, and mirrored: 2,592 are 3.3 times 784
    assert [KnownCrops.pays(8, 2, (3, 32, 32), 5, epochs) for epochs in (3, 4)] == [False, True]
    assert [KnownCrops.pays(0, 1, (3, 32, 32), 5, epochs) for epochs in (1, 2)] == [False, True]
