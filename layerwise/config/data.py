"""What images a run learns from."""

from dataclasses import dataclass, field

from layerwise.config.checks import at_least, between, setting
from layerwise.config.choices import BORDERS, DATASETS


@dataclass(frozen=True)
class Teacher:
    """Images drawn at random, each pixel a patch of a cluster, labeled by a random network with one hidden layer."""

    images: int = setting(10_000, at_least(20))
    """for training and validation"""
    clusters: int = setting(64, at_least(0))
    """number N0 of clusters that patches come from; 0: none, patches of every direction"""
    radius: float = setting(0.1, between(0, 1, 0.1, with_low=True))
    """of a cluster; centers have norm 1"""
    dimension: int = setting(16, at_least(2))
    """of a patch: the channels of a pixel"""
    side: int = setting(4, at_least(1))
    """of the images, in pixels"""
    hidden: int = setting(16, at_least(1))
    """hidden units of the network"""
    seed: int = setting(0, at_least(0))
    """of centers, network and images"""


@dataclass(frozen=True)
class Data:
    """Which images to learn from."""

    name: str = setting("digits", DATASETS)
    """data set"""
    root: str = "data"
    """folder that holds the data, or that it is downloaded to"""
    download: bool = True
    """fetch a known data set that root does not hold"""
    image_size: int | None = setting(None, at_least(1))
    """image_folder: side to shrink and crop every image to; null: as they are, all of one size"""
    validation: float = setting(0.1, between(0, 1, 0.1))
    """share of the training images held out to choose a layer's best epoch"""
    test: float = setting(0.1, between(0, 1, 0.1))
    """image_folder without a test folder: share of the images held out for the test"""
    flip: bool | None = None
    """mirror training images at random; null: whatever suits the data set"""
    crop: int | None = setting(None, at_least(0))
    """shift training images at random by up to so many pixels; null: an eighth of the side"""
    border: str = setting("mirrored", BORDERS)
    """what enters at the border of a shifted image"""
    skip_unreadable: bool = False
    """image_folder: exclude files that are not readable images, instead of stopping"""
    teacher: Teacher = field(default_factory=Teacher)
