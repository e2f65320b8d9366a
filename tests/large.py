"""Many pictures, as files in class folders or as tar shards, for what is to be measured on data that is large.

python -m tests.large FOLDER 200000             FOLDER/train/<class>/*.jpg
python -m tests.large FOLDER 200000 --shards    FOLDER/train-*.tar, each of 10,000 pictures with their classes
"""

import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

CLASSES, DISTINCT, SIDE, IN_A_SHARD = 10, 500, 64, 10_000


def pictures() -> list[tuple[int, bytes]]:
    """Distinct color photographs, as far as a decoder can tell, with their classes: the bytes of JPEG files of 3 kB."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(DISTINCT, 3, 16, 16, generator=generator), size=SIDE, mode="bicubic")
    noise = 0.08 * torch.randn(DISTINCT, 3, SIDE, SIDE, generator=generator)
    label = torch.arange(DISTINCT) % CLASSES
    waves = 0.1 * torch.sin(torch.arange(SIDE) * (1 + label[:, None]) / 4)[:, None, None]  # what tells a class
    pixels = ((smooth + noise + waves).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).numpy()
    return [(i, encoded(image)) for i, image in zip(label.tolist(), pixels, strict=True)]


def encoded(image: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of a picture file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=90)
    return file.getvalue()


def write_folder(root: Path, count: int) -> None:
    """Pictures in class folders."""
    several = pictures()
    for label in range(CLASSES):
        (root / "train" / f"{label:03}").mkdir(parents=True)
    for i in range(count):
        label, content = several[i % DISTINCT]
        (root / "train" / f"{label:03}" / f"{i:08}.jpg").write_bytes(content)


def write_shards(root: Path, count: int, in_a_shard: int = IN_A_SHARD) -> None:
    """The same in tar files, as WebDataset lays them out: KEY.jpg and KEY.cls."""
    several = pictures()
    root.mkdir(parents=True)
    for start in range(0, count, in_a_shard):
        with tarfile.open(root / f"train-{start // in_a_shard:06}.tar", "w") as shard:
            for i in range(start, min(count, start + in_a_shard)):
                label, content = several[i % DISTINCT]
                add(shard, f"{i:08}.jpg", content)
                add(shard, f"{i:08}.cls", str(label).encode())


def add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """Append a member."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    write = write_shards if "--shards" in sys.argv else write_folder
    write(Path(sys.argv[1]), int(sys.argv[2]))
