"""Reading pictures: upright, in 8 bits, no finer than needed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from layerwise.data.reading import ORIENTATION, each, read_header, read_picture

HALVES = np.zeros((10, 30), np.uint8)
HALVES[:, :15] = 255


def save(path: Path, pixels: np.ndarray, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    "orientation, size, bright",
    [(1, (30, 10), "left"), (3, (30, 10), "right"), (6, (10, 30), "top"), (8, (10, 30), "bottom")],
)
def test_picture__is_upright__as_its_header_says(
    orientation: int, size: tuple[int, int], bright: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "picture.png", HALVES, orientation)
    assert read_header(path) == (size, True)
    picture = read_picture(path, "L")
    assert picture.size == size and picture.mode == "L"
    pixels = np.asarray(picture)
    corners = {"left": pixels[:, 0], "right": pixels[:, -1], "top": pixels[0], "bottom": pixels[-1]}
    assert [place for place, values in corners.items() if values.min() == 255] == [bright]


def test_header__tells_gray_from_color(tmp_path: Path) -> None:
    modes = {"1": True, "L": True, "LA": True, "I;16": True, "P": False, "RGB": False, "RGBA": False}
    for mode, gray in modes.items():
        path = tmp_path / f"{mode.replace(';', '')}.png"
        Image.new(mode, (3, 2)).save(path)
        assert read_header(path) == ((3, 2), gray)
        assert read_picture(path, "RGB").mode == "RGB"


def test_picture__of_16_bits_keeps_its_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257, 65535, 32896]], np.uint16)).save(tmp_path / "deep.png")
    assert np.asarray(read_picture(tmp_path / "deep.png", "L")).tolist() == [[0, 1, 255, 128]]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_picture__is_shrunk_until_its_shorter_side_is_so_long(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"large.{suffix}", HALVES.repeat(20, 0).repeat(20, 1), 6)  # 600×200 to be turned
    for shorter in (7, 25, 200):
        picture = read_picture(path, "L", shorter)
        assert picture.size == (shorter, 3 * shorter)
        pixels = np.asarray(picture)
        assert pixels[: shorter - 1].min() > 240 and pixels[-shorter + 1 :].max() < 15


@pytest.mark.parametrize("mode", ["I", "F"])
def test_picture__of_an_unknown_range_is_refused(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "unknown.tiff"
    Image.new(mode, (4, 4)).save(path)
    for read in (read_header, lambda path: read_picture(path, "L")):
        with pytest.raises(ValueError, match=f"{mode} pixels have no known range"):
            read(path)


def test_each__keeps_the_order() -> None:
    assert each("counting", lambda number: number**2, range(100)) == [number**2 for number in range(100)]
