import torch

from layerwise.data.batches import Augmentation, Batches, Images, fold_seed, to_input


def images(n: int) -> Images:
    return Images(torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 4, 4), torch.arange(n))


def test_augmentation__flips_and_shifts_each_image_by_its_own_draw(generator: torch.Generator) -> None:
    row = torch.arange(8, dtype=torch.uint8)
    x = (row[:, None] * 10 + row).expand(200, 1, 8, 8)
    out = Augmentation(flip=True, crop=2)(x, generator)
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
    seen = {tuple(image[0, 0].tolist()) for image in Augmentation(flip=False, crop=1)(x, generator)}
    assert seen == {(1, 0, 1, 2), (0, 1, 2, 3), (1, 2, 3, 2)}


def test_augmentation__is_black_beyond_the_border__where_asked(generator: torch.Generator) -> None:
    x = torch.arange(1, 5, dtype=torch.uint8).expand(100, 1, 4, 4)
    augmentation = Augmentation(flip=True, crop=1, border="black")
    seen = {tuple(image[0, 1].tolist()) for image in augmentation(x, generator)}
    ahead = {(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 0)}
    assert seen == ahead | {row[::-1] for row in ahead}
    first = {tuple(image[0, 0].tolist()) for image in augmentation(x, generator)}
    assert first == seen | {(0, 0, 0, 0)}


def test_batches__of_an_epoch_hold_each_image_at_most_once_and_repeat_with_the_seed() -> None:
    def labels(seed: int) -> list[int]:
        return [int(i) for _, y in Batches(images(10), 3, augmentation=Augmentation(False, 0), seed=seed) for i in y]

    assert len(labels(0)) == len(set(labels(0))) == 9
    assert labels(0) == labels(0) != labels(1)


def test_batches__without_augmentation_are_all_images_in_order() -> None:
    batches = Batches(images(10), 4)
    assert len(batches) == 3
    assert torch.cat([y for _, y in batches]).tolist() == list(range(10))


def test_to_input__ranges_from_minus_1_to_1() -> None:
    assert to_input(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_fold_seed__tells_numbers_and_their_order_apart() -> None:
    seeds = {fold_seed(i, j) for i in range(50) for j in range(50)}
    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)
