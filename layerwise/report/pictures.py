"""Pictures of what was learned: atoms, the patches of images that they answer to, images that were taken for others.

Shapes: N atoms, P patch dimension, C channels, n images of H×W.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.data.batches import images_in_room
from layerwise.data.images import Images, to_input
from layerwise.nn.outline import most_numbers
from layerwise.nn.stack import FrozenStack
from layerwise.report.figures import Pixels

ANSWERED = 48
"""atoms, at most, whose patches are shown"""
PATCHES, ACROSS = 6, 3
"""patches of each, and atoms side by side"""
TOGETHER = 32
"""images, at most, whose patches are compared at once"""
SMALLEST, LARGEST = 3, 128
"""pixels of a tile's side"""


def atoms_picture(patches: Tensor, channels: int, width: int = 640) -> Pixels:
    """All atoms as one grid, each as the patch that it stands for, less the mean patch; of a CNN its kernels.

    The patches (N, P) are the `patterns` of a layer's embedding, C `channels` each; more than three are shown as the
    three directions, in red, green and blue, along which the atoms' pixels differ most.
    """
    side = round((patches.shape[1] / channels) ** 0.5)
    tiles = patches.reshape(-1, side, side, channels).cpu()
    if channels not in (1, 3):
        directions = torch.linalg.svd(tiles.reshape(-1, channels), full_matrices=False).Vh[:3]
        tiles = F.pad(tiles @ directions.T, (0, 3 - len(directions)))
    tiles = tiles / tiles.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12) / 2 + 0.5
    columns = math.ceil(len(tiles) ** 0.5)
    return grid((tiles.expand(-1, -1, -1, 3) * 255).round().byte(), columns, width)


def grid(tiles: Tensor, columns: int, width: int = 640, group: int = 1) -> Pixels:
    """Tiles (n, s, s, 3) of uint8 in rows, enlarged to about `width` pixels, on nothing: (H, W, 4).

    Between them is a gap, and after each `group` in a row a wider one.
    """
    side = tiles.shape[1]
    scale, rows = max(1, width // columns // side), -(-len(tiles) // columns)
    gaps = torch.tensor([2 + 6 * (column % group == 0) * (group > 1) for column in range(columns)])
    lefts = gaps.cumsum(0) + torch.arange(columns) * side * scale
    picture = torch.zeros(rows * (side * scale + 2) + 2, int(lefts[-1]) + side * scale + 2, 4, dtype=torch.uint8)
    for i, tile in enumerate(tiles):
        large = tile.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        top, left = 2 + i // columns * (side * scale + 2), int(lefts[i % columns])
        place = picture[top : top + side * scale, left : left + side * scale]
        place[..., :3], place[..., 3] = large, 255
    return picture.numpy()


def answers_picture(stack: FrozenStack, images: Images, width: int = 960) -> Pixels:
    """The patches of images that atoms of the top layer answer to most, a group of six for each atom.

    A patch of a layer's input is shown as the part of the image that it is computed from. Atoms are chosen evenly by
    how often they take part; of each image at most one patch is shown for an atom.
    """
    top = stack.layers[-1].layer.embedding
    atoms = chosen_atoms(usage(stack, images))
    best = torch.full((len(atoms), len(images)), -math.inf)
    where = torch.zeros(len(atoms), len(images), dtype=torch.long)
    together = _together(stack, images)
    for start in range(0, len(images), together):
        x = to_input(images.pixels[start : start + together]).to(next(top.buffers()).device)
        answers = top.answers(stack.lower(x)[0])[..., atoms]  # (B, h, w, A)
        columns = answers.shape[2]
        values, places = answers.flatten(1, 2).max(1)
        best[:, start : start + len(x)], where[:, start : start + len(x)] = values.T.cpu(), places.T.cpu()
    chosen = best.topk(min(PATCHES, len(images))).indices
    step, size = field_of(stack)
    c, h, w = images.shape
    size = min(size, h, w)
    tiles = []
    for atom, found in enumerate(chosen.tolist()):
        for image in found:
            row, column = divmod(int(where[atom, image]), columns)
            y, x_ = min(step * row, h - size), min(step * column, w - size)
            tiles.append(images.pixels[image][:, y : y + size, x_ : x_ + size])
    stacked = torch.stack(tiles).permute(0, 2, 3, 1)
    shown = stacked[..., :3] if c >= 3 else stacked[..., :1].expand(-1, -1, -1, 3)
    each = chosen.shape[1]
    return grid(shown, ACROSS * each, width, each)


def field_of(stack: FrozenStack) -> tuple[int, int]:
    """(step, side) in pixels of the parts of an image that patches of the top layer's input are computed from."""
    step, side = 1, 1
    for below in stack.lower.layers:
        embedding = below.layer.embedding
        side += step * (embedding.pool + embedding.gate.patch_size - 2)
        step *= embedding.pool
    return step, side + step * (stack.layers[-1].layer.embedding.gate.patch_size - 1)


def usage(stack: FrozenStack, images: Images) -> Tensor:
    """How often each atom of the top layer takes part, over all positions of images, (N,), on the CPU."""
    below, top = stack.lower, stack.layers[-1].layer.embedding
    total = torch.zeros(0)
    with torch.no_grad():
        for pixels in images.parts(_together(stack, images)):
            x = to_input(pixels).to(next(top.buffers()).device)
            shares = top.usage(below(x)[0]).cpu() * len(x) / len(images)
            total = shares if not len(total) else total + shares
    return total


def _together(stack: FrozenStack, images: Images) -> int:
    """How many images have room together, with what each atom of the top layer says of each position."""
    below = stack.lower
    _, h, w = below.shape(images.shape)
    each = h * w * len(stack.layers[-1].layer.embedding.dictionary.atoms)
    return min(TOGETHER, images_in_room(max(each, most_numbers(below.layers, images.shape))))


def chosen_atoms(shares: Tensor) -> Tensor:
    """At most 48 atoms, evenly spaced from the one that takes part most often to the one that does least."""
    order = shares.argsort(descending=True, stable=True)
    return order[torch.linspace(0, len(order) - 1, min(ANSWERED, len(order))).round().long()]


def some_of_each(images: Images, count: int) -> Images:
    """At most so many images, as many of each class as there are."""
    rank = torch.empty_like(images.labels)
    for label in set(images.labels.tolist()):
        own = images.labels == label
        rank[own] = torch.arange(int(own.sum()))
    return images.subset(rank.argsort(stable=True)[:count])


def as_picture(pixels: Tensor) -> Pixels:
    """An image (C, H, W) of uint8 as (H, W, 3), enlarged where it is small, shrunk where it is large."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    longer = max(shown.shape[1:])
    if longer > LARGEST:
        sides = [max(1, round(side * LARGEST / longer)) for side in shown.shape[1:]]
        shown = F.interpolate(shown[None].float(), sides, mode="area")[0].round().byte()
    return shown.permute(1, 2, 0).contiguous().numpy()
