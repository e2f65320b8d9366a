"""What is told of images that changed."""

import torch

from layerwise.data.content import Content, content_of
from layerwise.data.images import Images


def content(*images: tuple[int, int], names: str | None = None) -> Content:
    """Of images of one pixel, each given as its gray and its class, with a letter for a name."""
    grays, labels = ([image[i] for image in images] for i in (0, 1))
    pixels = torch.tensor(grays, dtype=torch.uint8)[:, None, None, None]
    own = Images(pixels, torch.tensor(labels), list(names) if names else None)
    return content_of({"train": own})


def test_content__of_the_same_images_is_the_same() -> None:
    assert content((1, 0), (2, 1)) - content((1, 0), (2, 1)) == ""


def test_content__counts_by_name() -> None:
    before = content((1, 0), (2, 0), (3, 1), names="abc")
    assert content((1, 0), (9, 0), (3, 1), names="abc") - before == "1 changed"
    assert content((1, 0), (2, 1), (3, 1), names="abc") - before == "1 changed"  # of class
    assert content((1, 0), (3, 1), names="ac") - before == "1 removed"
    assert content((1, 0), (2, 0), (7, 0), (3, 1), names="abxc") - before == "1 added"
    assert content((5, 0), (7, 0), (8, 0), names="axy") - before == "2 added, 2 removed, 1 changed"


def test_content__without_names_counts_by_place__and_else_by_what_is_shown() -> None:
    before = content((1, 0), (2, 0), (2, 0), (3, 1))
    assert content((1, 0), (2, 0), (4, 0), (3, 1)) - before == "1 changed"
    assert content((2, 0), (1, 0), (3, 1)) - before == "1 removed"
    assert content((1, 0), (2, 0), (2, 0), (2, 0), (3, 1)) - before == "1 added"
    assert content((1, 0), (2, 0)) - before == "2 removed"
