"""Small layers that are not trained, for tests of what is made of layers."""

import torch

from layerwise.config import Layer
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.nn.mirror import patch_mirror

SMALL = Layer(patch_size=3, atoms=8, channels=5, pool=2)


def make_layer(
    settings: Layer, shape: tuple[int, int, int], classes: int = 3, paired: bool = False, number: int = 1
) -> ProbedLayer:
    """Layer `number` with first weights, on a dictionary of normal patches; of a mirrored one in pairs, if `paired`."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(500, settings.patch_size**2 * shape[0], generator=generator)
    mirror = patch_mirror(shape[0], settings.patch_size, paired) if settings.mirror else None
    kind, metric = settings.dictionary, settings.gate.metric
    components = (settings.channels or 0) if settings.output == "gates" else 0
    given = settings.atoms, generator, kind, settings.whitening, metric
    dictionary = learn_dictionary(patches, *given, mirror=mirror, neighbors=settings.k, components=components)
    torch.manual_seed(2)
    return build_layer(settings, dictionary, shape, classes, number)
