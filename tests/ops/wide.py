"""A training step of a wide dictionary on 32-pixel images, in a process of its own: its memory, and its gates.

`python -m tests.ops.wide 65536 16` prints the most memory that the process took, in GiB, and how many of the gates are
not those of distances in float64, ties within float32 set apart.
"""

import sys

import torch
from torch import Tensor

from layerwise import memory
from layerwise.config import Layer, Optimizer
from layerwise.experiments.benchmark.steps import natural_images, training_step
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.layer import build_layer
from layerwise.ops import extract_patches
from layerwise.ops.near import mask_of

BATCH, SIZE = 16, 6


def wrong(x: Tensor, dictionary: PatchDictionary, near: Tensor, k: int) -> int:
    """How many gates of an image, (1, C, H, W), are not as a sort in float64 has them, by more than float32 rounds."""
    patches, found = extract_patches(x, SIZE).flatten(0, 2).double(), 0
    masks = mask_of(near.flatten(0, 2), len(dictionary.atoms))
    for part, mask in zip(torch.split(patches, 81), torch.split(masks, 81), strict=True):
        scores = part @ dictionary.scorer[:-1].double() + dictionary.scorer[-1].double()
        ordered = scores.sort(1).values
        slack = 1e-5 * (1 + scores.abs().amax(1, keepdim=True))
        least, most = ordered[:, k - 1, None] - slack, ordered[:, k - 1, None] + slack
        found += int((mask & (scores > most)).sum() + (~mask & (scores < least)).sum())
        assert bool((mask.sum(1) == k).all())
    return found


def main(atoms: int, k: int) -> None:
    """A step, and the gates of its first image."""
    memory.keep_what_is_freed()
    generator = torch.Generator().manual_seed(0)
    x = natural_images(BATCH, generator)
    patches = extract_patches(x, SIZE).flatten(0, 2)
    drawn = patches[torch.randint(len(patches), (atoms,), generator=generator)]
    atoms_like_patches = drawn + 0.3 * torch.randn(drawn.shape, generator=generator)
    dictionary = PatchDictionary(torch.zeros(drawn.shape[1]), torch.eye(drawn.shape[1]), atoms_like_patches)
    layer = build_layer(Layer(patch_size=SIZE, atoms=atoms, neighbors=k, pool=2), dictionary, (3, 32, 32), 10)
    step = training_step(layer, x, 10, Optimizer())
    for _ in range(2):
        step()
    print(f"{memory.peak() / 2**30:.2f} GiB", flush=True)
    ask = layer.layer.embedding.ask
    assert ask is not None
    print(f"{wrong(x[:1], dictionary, ask(x[:1]), k)} wrong")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
