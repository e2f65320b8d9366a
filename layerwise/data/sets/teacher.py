"""The theorem's world: images of clustered patches, labeled by a random CNN with one hidden layer (paper, section 5).

A patch is a pixel of many channels, so that patches do not overlap and every patch comes from a cluster.

Shapes: n images, d channels, S side, N0 clusters, q hidden units.
"""

import torch
from torch import Tensor

from layerwise.config import Data, SettingError, Teacher
from layerwise.config.choices import DATASETS
from layerwise.data.images import Images
from layerwise.data.splits import RawData

TEST_IMAGES = 4000
CANDIDATES = 4096
EXTENT = 0.5
"""pixel value, of at most 1, that stands for length 1: leaves room for a center and the noise around it"""
MARGIN = 0.1
"""in deviations of the network's output: images nearer to the threshold are not drawn"""


@DATASETS("teacher")
def teacher(config: Data) -> RawData:
    """Images whose patches come from clusters, labeled by a random network: the setting of the paper's theorem."""
    train, test = draw(config.teacher)
    return RawData(["low", "high"], train, test, flip=False)


def draw(config: Teacher) -> tuple[Images, Images]:
    """Draw training and test images; more training images are the same ones and then others.

    A label says whether sum over positions p and units i of a_ip * max(0, w_i . z_p) is above its median.
    """
    generator = torch.Generator().manual_seed(config.seed)
    centers = separated(config.clusters, config.dimension, generator) if config.clusters else None
    hidden = directions(config.hidden, config.dimension, generator)
    output = torch.randn(config.hidden, config.side**2, generator=generator)
    sample = _score(_patches(TEST_IMAGES, centers, config, generator), hidden, output)
    threshold, deviation = sample.median(), sample.std()
    if not float(((sample - threshold).abs() > MARGIN * deviation).double().mean()) > MARGIN:
        what = f"with {config.clusters} clusters of radius {config.radius} and {config.hidden} hidden units the images"
        raise SettingError(f"data.teacher.clusters: {what} can hardly be told apart; give more of either")

    def images(count: int, seed: int) -> Images:
        own = torch.Generator().manual_seed(seed)
        patches, labels, found = [], [], 0
        while found < count:
            some = _patches(TEST_IMAGES, centers, config, own)
            score = (_score(some, hidden, output) - threshold) / deviation
            clear = score.abs() > MARGIN
            patches.append(some[clear])
            labels.append((score[clear] > 0).long())
            found += int(clear.sum())
        pixels = torch.cat(patches)[:count].reshape(count, config.side, config.side, -1).permute(0, 3, 1, 2)
        return Images(((pixels * EXTENT + 1) * 127.5).round().clamp(0, 255).byte(), torch.cat(labels)[:count])

    return images(config.images, 2 * config.seed + 1), images(TEST_IMAGES, 2 * config.seed + 2)


def directions(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Random vectors of norm 1, (count, d)."""
    return torch.nn.functional.normalize(torch.randn(count, dimension, generator=generator), dim=1)


def separated(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Vectors of norm 1 far from each other, (count, d): each the farthest of random ones from those before it."""
    candidates = directions(max(CANDIDATES, 4 * count), dimension, generator)
    chosen, distance = [candidates[0]], torch.full((len(candidates),), torch.inf)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (candidates - chosen[-1]).norm(dim=1))
        chosen.append(candidates[distance.argmax()])
    return torch.stack(chosen)


def _patches(count: int, centers: Tensor | None, config: Teacher, generator: torch.Generator) -> Tensor:
    """(n, S*S, d)."""
    shape = count, config.side**2
    around = directions(count * config.side**2, config.dimension, generator).reshape(*shape, -1)
    if centers is None:
        return around
    reach = config.radius * torch.rand(*shape, 1, generator=generator) ** (1 / config.dimension)  # uniform in the ball
    return centers[torch.randint(len(centers), shape, generator=generator)] + reach * around


def _score(patches: Tensor, hidden: Tensor, output: Tensor) -> Tensor:
    """The network's output, (n,)."""
    return torch.einsum("npi,ip->n", (patches @ hidden.T).relu(), output)
