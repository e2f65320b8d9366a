"""Members of tar files, found without being unpacked, and read where they lie."""

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar file; it is read from there, and its name is no path to anything."""

    shard: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"

    def open(self, mode: Literal["rb"] = "rb") -> io.BytesIO:
        """A stream of its bytes; ValueError where the tar file ends within."""
        with open(self.shard, mode, buffering=0) as file:
            return io.BytesIO(self.bytes_of(file.fileno()))

    def bytes_of(self, file: int) -> bytes:
        """Its bytes, by a descriptor of the tar file; ValueError where that ends within."""
        content = os.pread(file, self.size, self.offset)
        if len(content) < self.size:
            raise ValueError("the tar file is cut short")
        return content


def members(shard: Path) -> Iterator[Member]:
    """The regular files in an uncompressed tar file, in order.

    Raises tarfile.TarError or OSError where it is none, and in the end ValueError where it is cut short.
    """
    with open(shard, "rb", buffering=0) as file:
        plain, end = list(_plain(shard, file.fileno())), 0  # where the last one ends
        if plain and plain[-1] is None:
            with tarfile.open(shard, "r:") as archive:
                for info in archive:
                    if info.isreg() and not info.issparse():
                        yield Member(shard, info.name, info.offset_data, info.size)
                end = archive.offset
        else:
            for member in filter(None, plain):
                yield member
                end = member.offset + -(-member.size // BLOCK) * BLOCK
        if os.pread(file.fileno(), BLOCK, end) != bytes(BLOCK):  # zeros, which all tar files end with
            raise ValueError("it has no end: the tar file is cut short, or damaged")


def _plain(shard: Path, file: int) -> Iterator[Member | None]:
    """As `tarfile` finds them, in a fifth of the time; None and the end at what needs more than the usual header."""
    offset = 0
    while header := os.pread(file, BLOCK, offset):
        if not header.strip(b"\0"):
            return
        if len(header) < BLOCK or header[156:157] not in b"0\0" or header[257:262] != b"ustar":
            yield None
            return
        try:
            size, told = (
                int(header[start : start + length].strip(b" \0") or b"0", 8) for start, length in ((124, 12), (148, 8))
            )
            name, folder = (
                header[start : start + length].split(b"\0", 1)[0].decode() for start, length in ((0, 100), (345, 155))
            )
        except ValueError:
            yield None
            return
        if told != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            yield None
            return
        gnu = header[257:265] == b"ustar  \0"  # which keeps times where others keep folders
        yield Member(shard, f"{folder}/{name}" if folder and not gnu else name, offset + BLOCK, size)
        offset += BLOCK + -(-size // BLOCK) * BLOCK
