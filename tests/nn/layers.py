"""Small layers that are not trained, for tests of what is made of layers."""

import torch

from layerwise.config import Layer
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.layer import ProbedLayer, build_layer

SMALL = Layer(patch_size=3, atoms=8, channels=5, pool=2)


def make_layer(settings: Layer, shape: tuple[int, int, int], classes: int = 3) -> ProbedLayer:
    """A layer with first weights, on a dictionary of normal patches."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(500, settings.patch_size**2 * shape[0], generator=generator)
    dictionary = learn_dictionary(
        patches, settings.atoms, generator, settings.dictionary, settings.whitening, settings.gate.metric
    )
    torch.manual_seed(2)
    return build_layer(settings, dictionary, shape, classes)
