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
    modes = {"1": True, "L": True, "LA": True, "I;16": True, "P": True, "RGB": False, "RGBA": False}
    for mode, gray in modes.items():  # a new palette is of grays
        path = tmp_path / f"{mode.replace(';', '')}.png"
        Image.new(mode, (3, 2)).save(path)
        assert read_header(path) == ((3, 2), gray)
        assert read_picture(path, "RGB").mode == "RGB"
    assert read_header(save(tmp_path / "odd.png", HALVES, 9)).size == (30, 10)  # there are eight orientations
    image = Image.new("P", (3, 2))
    image.putpalette([0, 0, 0, 9, 8, 9])
    image.save(tmp_path / "colors.png")
    assert not read_header(tmp_path / "colors.png").is_gray


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


@pytest.mark.parametrize("suffix, depth", [("png", 8), ("png", 16), ("tif", 8), ("tif", 16), ("jpg", 8), ("webp", 8)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture__of_every_format_depth_and_orientation(
    suffix: str, depth: int, orientation: int, tmp_path: Path
) -> None:
    stored = np.zeros((16, 48), np.uint16 if depth == 16 else np.uint8)
    stored[:8, :16] = 65535 if depth == 16 else 255  # the first corner is bright: a wide third, the upper half
    path = save(tmp_path / f"picture.{suffix}", stored, orientation)
    # what the EXIF standard says: where row 0 and column 0 of what is stored are to be seen
    rows, columns = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    turned = orientation >= 5
    assert read_header(path)[0] == ((16, 48) if turned else (48, 16))
    pixels = np.asarray(read_picture(path, "L")).astype(int)
    expected = np.zeros((48, 16) if turned else (16, 48), int)
    up, left = "top" in (rows, columns), "left" in (rows, columns)
    tall, wide = (16, 8) if turned else (8, 16)
    expected[slice(None, tall) if up else slice(-tall, None), slice(None, wide) if left else slice(-wide, None)] = 255
    assert np.abs(pixels - expected).max() < 40  # lossy formats ring a little


def test_picture__with_transparency_lies_on_white(tmp_path: Path) -> None:
    icon = np.zeros((2, 3, 4), np.uint8)
    icon[0, 0, 3], icon[1, 1] = 255, (255, 0, 0, 128)  # black drawn in the alpha channel alone; half-transparent red
    Image.fromarray(icon).save(tmp_path / "icon.png")
    expected = np.full((2, 3, 3), 255)
    expected[0, 0], expected[1, 1] = 0, (255, 127, 127)
    assert np.abs(np.asarray(read_picture(tmp_path / "icon.png", "RGB")).astype(int) - expected).max() <= 1
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.gif", transparency=1)
    assert np.asarray(read_picture(tmp_path / "palette.gif", "RGB")).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    gray = np.array([[[7, 255], [7, 0]]], np.uint8)
    Image.fromarray(gray, "LA").save(tmp_path / "gray.png")
    assert read_header(tmp_path / "gray.png") == ((2, 1), True)
    assert np.asarray(read_picture(tmp_path / "gray.png", "L")).tolist() == [[7, 255]]


def test_picture__faults_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ValueError, match="F pixels have no known range; save it with 8 or 16 bits"):
        read_picture(tmp_path / "f.tif", "L")
    with pytest.raises(IsADirectoryError, match="directory"):
        read_header(tmp_path)


def test_picture__of_12_bits_in_16__and_of_a_range_in_its_header__is_read_by_that(tmp_path: Path) -> None:
    values = np.array([[0, 2048], [4080, 4095]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    place = content.index((258).to_bytes(2, "little") + (3).to_bytes(2, "little"))  # the tag of the bits of a pixel
    content[place + 8 : place + 10] = (12).to_bytes(2, "little")
    packed = bytes.fromhex("000800ff0fff")  # two pixels in three bytes
    (tmp_path / "a.tiff").write_bytes(content.replace(values.tobytes(), packed + b"\0\0"))
    assert np.asarray(read_picture(tmp_path / "a.tiff", "L")).tolist() == [[0, 127], [254, 255]]
    for highest in (1023, 65535):
        samples = b"".join(int(share * highest).to_bytes(2, "big") for share in (0, 0.2, 0.6, 1))
        (tmp_path / "a.pgm").write_bytes(f"P5 2 2 {highest}\n".encode() + samples)
        assert np.asarray(read_picture(tmp_path / "a.pgm", "L")) == pytest.approx(
            np.array([[0, 51], [153, 255]]), abs=1
        )
        assert read_header(tmp_path / "a.pgm") == ((2, 2), True)


def test_picture__of_16_bits__what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 30]], np.uint16)).save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I;16") and image.info["transparency"] == 0
    assert np.asarray(read_picture(tmp_path / "a.png", "L")).tolist() == [[255, 30]]
