"""Members are found as `tarfile` finds them, whichever program wrote the tar file."""

import io
import tarfile
from pathlib import Path

import pytest

from layerwise.data.tar import members


def write(path: Path, kind: int, mtime: float, extra: str | None = None) -> None:
    with tarfile.open(path, "w", format=kind) as archive:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        for i, name in enumerate(["a.jpg", "b/c.cls", *([extra] if extra else []), "d" * 90 + "/" + "e" * 60, "z"]):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 500 * i + (i == 1), mtime
            archive.addfile(info, io.BytesIO(bytes([i]) * info.size))
            archive.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("mtime", [7, 7.5])
@pytest.mark.parametrize("extra", [None, "long" * 60, "ä.png", "../../up.png"])
def test_members__are_tarfiles_regular_ones(kind: int, mtime: float, extra: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    if kind == tarfile.USTAR_FORMAT and extra and len(extra) > 100:
        return  # which it has no room for
    write(path, kind, mtime, extra)
    with tarfile.open(path) as archive:
        expected = [
            (info.name, archive.extractfile(info).read())  # type: ignore[union-attr]
            for info in archive
            if info.isreg()
        ]
    assert [(member.name, member.open().read()) for member in members(path)] == expected and len(expected) >= 4


def test_members__plain_ones_are_found_without_tarfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("a.jpg", "d" * 90 + "/" + "e" * 60):
            info = tarfile.TarInfo(name)
            info.size = 513
            archive.addfile(info, io.BytesIO(bytes(513)))
    monkeypatch.delattr(tarfile, "open")
    assert [member.name for member in members(tmp_path / "x.tar")] == ["a.jpg", "d" * 90 + "/" + "e" * 60]


def test_members__of_what_is_no_tar_file__or_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar file" * 100)
    with pytest.raises(tarfile.TarError):
        list(members(path))
    write(path, tarfile.USTAR_FORMAT, 7)
    whole = path.read_bytes()
    (damaged := bytearray(whole))[0] ^= 1  # so that the sum of the header is another
    path.write_bytes(damaged)
    with pytest.raises(tarfile.TarError):
        list(members(path))
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = 2000
        archive.addfile(info, io.BytesIO(bytes(2000)))
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match="cut short"):
        [member.open() for member in members(path)]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
def test_members__of_what_ends_between_two__are_told_before_that_it_is_cut_short(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write(path, kind, 7.5)
    with tarfile.open(path) as archive:
        ends = archive.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:ends])
    found, reader = [], members(path)
    with pytest.raises(ValueError, match="it has no end: the tar file is cut short"):
        while True:
            found.append(next(reader).name)
    assert found == ["a.jpg", "b/c.cls"]
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="it has no end"):
        list(members(path))
