import torch
from torch import Tensor

from layerwise.config.choices import BORDERS
from layerwise.data.images import Augmentation


def applied(augmentation: Augmentation, x: Tensor, generator: torch.Generator) -> Tensor:
    return augmentation(x, augmentation.draw(len(x), generator))


def test_augmentation__flips_and_shifts_each_image_by_its_own_draw(generator: torch.Generator) -> None:
    row = torch.arange(8, dtype=torch.uint8)
    x = (row[:, None] * 10 + row).expand(200, 1, 8, 8)
    out = applied(Augmentation(flip=True, crop=2), x, generator)
    kinds = set()
    for image in out[:, 0].int():
        flipped = bool(image[4, 4] < image[4, 3])
        image = image.flip(1) if flipped else image
        down, right = int(image[4, 4] // 10 - 4), int(image[4, 4] % 10 - 4)
        kinds.add((flipped, down, right))
        inside = [i for i in range(8) if 0 <= i + down < 8], [j for j in range(8) if 0 <= j + right < 8]
        for i in inside[0]:
            for j in inside[1]:
                assert image[i, j] == (i + down) * 10 + j + right
    shifts = {(down, right) for _, down, right in kinds}
    assert shifts == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    assert {flipped for flipped, _, _ in kinds} == {True, False}


def test_augmentation__mirrors_at_the_border(generator: torch.Generator) -> None:
    x = torch.arange(4, dtype=torch.uint8).expand(50, 1, 4, 4)
    seen = {tuple(image[0, 0].tolist()) for image in applied(Augmentation(flip=False, crop=1), x, generator)}
    assert seen == {(1, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 2)}


def test_augmentation__is_black_beyond_the_border__where_asked(generator: torch.Generator) -> None:
    x = torch.arange(1, 5, dtype=torch.uint8).expand(100, 1, 4, 4)
    augmentation = Augmentation(flip=True, crop=1, border="black")
    seen = {tuple(image[0, 1].tolist()) for image in applied(augmentation, x, generator)}
    ahead = {(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 0)}
    assert seen == ahead | {row[::-1] for row in ahead}
    first = {tuple(image[0, 0].tolist()) for image in applied(augmentation, x, generator)}
    assert first == seen | {(0, 0, 0, 0)}


def test_augmentation__changes_nothing_where_nothing_is_asked_for(generator: torch.Generator) -> None:
    x = torch.randint(0, 256, (5, 3, 4, 6), generator=generator, dtype=torch.uint8)
    for border in BORDERS:
        assert torch.equal(applied(Augmentation(flip=False, crop=0, border=border), x, generator), x)
    assert [Augmentation(*asked).changes for asked in ((False, 0), (True, 0), (False, 1))] == [False, True, True]


def test_augmentation__moves_all_channels_alike(generator: torch.Generator) -> None:
    x = torch.randint(0, 100, (20, 1, 5, 4), generator=generator, dtype=torch.uint8)
    for border in BORDERS:
        out = applied(Augmentation(flip=True, crop=2, border=border), torch.cat([x, 2 * x], 1), generator)
        assert torch.equal(out[:, 1], 2 * out[:, 0]) and not torch.equal(out[:, :1], x)
