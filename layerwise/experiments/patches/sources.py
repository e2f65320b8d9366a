"""Where patches to be measured come from: a data set, the features under a layer of a run, or any photographs.

Shapes: M patches, P = s*s*C patch dimension.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerwise.config import Features, SettingError
from layerwise.data.images import to_input
from layerwise.data.reading import each, read_picture
from layerwise.data.splits import DataSet
from layerwise.data.views import ViewStore
from layerwise.experiments.patches.clusters import contrast
from layerwise.nn.stack import FrozenStack
from layerwise.ops import extract_patches
from layerwise.training.inputs import sample_inputs

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FEWEST = 100  # patches, below which nothing can be said
LOOKED_AT = 4096
PHOTOGRAPHS = 4096  # so many photographs are read, at most, drawn at random


@dataclass(frozen=True)
class Source:
    """Patches, and what they are of."""

    name: str
    patches: Tensor
    """(M, P) float32, in random order"""
    patch_size: int
    shape: tuple[int, int, int]
    """(C, H, W) of the images or features; of photographs that differ in size, those of the first"""
    available: int
    """patches that there are to be drawn"""

    def __post_init__(self) -> None:
        dimension = self.patches.shape[1]
        if dimension < 4:
            raise SettingError(
                f"--patch_size: {self.patch_size} gives patches of dimension {dimension}, too low: give a larger one"
            )
        different = len(torch.unique(contrast(self.patches[:LOOKED_AT]), dim=0))
        if different < FEWEST:
            raise SettingError(
                f"of {self.name} {len(self.patches)} patches were drawn, {different} of them different: too few to be "
                "measured; give other images, or more"
            )


def of_features(stack: FrozenStack, data: DataSet, name: str, patch_size: int, count: int, seed: int) -> Source:
    """Patches of a stack's output for training images, with nothing stored; of the images where it has no layers.

    Raises SettingError where the patches do not fit.
    """
    _, h, w = shape = stack.shape(data.shape)
    if patch_size > min(h, w):
        raise SettingError(f"--patch_size: {patch_size} does not fit the {h}×{w} images; give a smaller one")
    inputs = ViewStore(Features(views=0), data, seed, torch.device("cpu"))
    patches = sample_inputs(stack, inputs, patch_size, count, torch.Generator().manual_seed(seed))
    available = len(data.train) * (h - patch_size + 1) * (w - patch_size + 1)
    return Source(name, patches, patch_size, shape, available)


def of_photographs(folder: str | None, side: int | None, patch_size: int, count: int, seed: int) -> Source:
    """Patches at random positions of photographs of any size, in a folder and those below it.

    Without a folder these are the two that scikit-learn brings along. They are shrunk to `side` pixels on the shorter
    side, where it is given; a JPEG file is then decoded no finer than that takes. Of each photograph equally many of
    the `count` patches are drawn; no position is drawn twice, so fewer where there are fewer. Raises SettingError
    where there are no photographs, one of them cannot be read, or it is smaller than a patch.
    """
    generator = torch.Generator().manual_seed(seed)
    if folder is None:
        import sklearn

        files = sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    else:
        files = _in_folder(Path(folder))
    files = [files[i] for i in torch.randperm(len(files), generator=generator)[:PHOTOGRAPHS]]
    quota = -(-count // len(files))
    seeds = torch.randint(2**62, (len(files),), generator=generator).tolist()

    def draw(item: tuple[Path, int]) -> tuple[Tensor, tuple[int, int, int]]:
        path, own = item
        try:
            picture = read_picture(path, "RGB", side)  # upright
        except Exception as error:  # a damaged file can make a decoder raise anything
            raise SettingError(f"--photos: {path} is not a readable image; mend or remove it") from error
        # let go at once: many do not fit into memory together
        photograph = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
        c, h, w = photograph.shape
        if min(h, w) < patch_size:
            raise SettingError(f"--patch_size: {patch_size} does not fit {path}, {w}×{h} pixels; give a smaller one")
        return _cut(photograph, patch_size, quota, torch.Generator().manual_seed(own)), (c, h, w)

    drawn = each("reading photographs", draw, list(zip(files, seeds, strict=True)))
    patches = torch.cat([some for some, _ in drawn])
    order = torch.randperm(len(patches), generator=generator)[:count]
    name = "photographs" if folder is None else Path(folder).resolve().name
    available = sum((h - patch_size + 1) * (w - patch_size + 1) for _, (_, h, w) in drawn)
    return Source(name, patches[order], patch_size, drawn[0][1], available)


def _in_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SettingError(f"--photos: {folder} is not a folder; give one that holds images")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise SettingError(f"--photos: {folder} holds no images; give a folder of {', '.join(sorted(SUFFIXES))} files")
    if len(files) == 1:
        raise SettingError(f"--photos: {folder} holds one image, which says nothing of others; give two or more")
    return files


def _cut(photograph: Tensor, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Patches at `count` random positions, or all where there are fewer, in [-1, 1], (count, P)."""
    _, h, w = photograph.shape
    across = w - size + 1
    positions = torch.randperm((h - size + 1) * across, generator=generator)[:count, None, None]
    top = positions // across + torch.arange(size)[:, None]
    left = positions % across + torch.arange(size)
    crops = photograph[:, top, left].permute(1, 0, 2, 3)  # (count, C, s, s)
    return extract_patches(to_input(crops), size).flatten(1)
