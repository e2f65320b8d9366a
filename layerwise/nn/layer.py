"""A layer and its probe (paper, section 3).

Shapes: B batch, C channels in, H W image side, N atoms, D channels out, h' w' output side.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layerwise.config import Layer
from layerwise.config.choices import EMBEDDINGS, GATES, NORMS, PROBES, RESIDUALS
from layerwise.nn.dictionary import PatchDictionary, learn_dictionary
from layerwise.nn.embedding import Embedding
from layerwise.nn.kmeans import Progress
from layerwise.nn.mirror import PairedProjection, folded, patch_mirror
from layerwise.nn.outline import output_shape
from layerwise.nn.probe import LinearProbe
from layerwise.nn.projection import Sparse, can_be_one, normalized, projected
from layerwise.nn.residual import alone, concatenated, joined


@NORMS("batch")
def batch_norm(channels: int, eps: float) -> nn.Module:
    """Of each atom, over the images and positions of a batch."""
    return nn.BatchNorm2d(channels, eps=eps)


@NORMS("none")
def no_norm(channels: int, eps: float) -> nn.Module:
    """No normalization."""
    return nn.Identity()


class PatchLayer(nn.Module):
    """Embedding, averaged over windows; norm; projection to `channels`, if any; the input may be appended.

    That is what the probe reads. What is handed on is the same, or of which atoms are near the dictionary's components.
    Where the dictionary's atoms are in pairs, so are the channels of the output, and of an input that is appended.
    """

    def __init__(
        self,
        embedding: Embedding,
        norm: nn.Module,
        channels: int | None,
        residual: Callable[[Tensor, Tensor, int, int], Tensor],
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.norm = norm
        self.mirrored = embedding.dictionary.mirror is not None
        self.projection: nn.Module = nn.Identity()
        if channels is not None and self.mirrored:
            self.projection = PairedProjection(embedding.channels, channels // 2, 1)
        elif channels is not None:
            self.projection = nn.Conv2d(embedding.channels, channels, 1)
        self.residual = residual

    @property
    def linear(self) -> bool:
        """Whether all that comes behind the gates is linear; of what is defined elsewhere nothing is known."""
        known = self.embedding.widens and self.residual in (alone, concatenated)
        return known and type(self.norm) in (nn.BatchNorm2d, nn.Identity)

    def forward(self, x: Tensor, near: Tensor | None = None, wider: int = 1) -> Tensor:
        """Map (B, C, H, W) float32 to (B, D, h', w'); `near` is what the embedding's `ask` says. No gradient for x.

        Windows are so many times as wide as the embedding's, if it is `linear`: the average of what comes of those.
        While the norm is trained, a batch's moments are of what is averaged.
        """
        device = "cpu" if x.is_meta else x.device.type
        known = (near, wider) if wider > 1 else () if near is None else (near,)  # embeddings of others take no more
        gathered = None
        with torch.autocast(device, enabled=False):  # half precision would change which atoms are near
            if one := can_be_one(self.norm, self.projection, x):
                gathered = self.embedding.gathered(x.float(), *known)
            embedded = self.embedding(x.float(), *known) if gathered is None else Sparse(*gathered)
        if one:
            return self._beside_input(projected(self.norm, self.projection, embedded), x, wider)
        assert isinstance(embedded, Tensor)
        return self._beside_input(self.projection(normalized(self.norm, embedded, self.mirrored)), x, wider)

    def both(self, x: Tensor, near: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the probe reads and what is handed on, (B, D, h', w') each; which atoms are near is found once."""
        described = self.embedding.dictionary.components is not None
        if (
            described
            and near is None
            and (ask := self.embedding.ask)
            and not (x.is_meta or torch.compiler.is_exporting())
        ):
            with torch.autocast(x.device.type, enabled=False):  # as in `forward`
                near = ask(x.float())
        read = self(x, near)
        return read, self.handed_on(x, near) if described else read

    def handed_on(self, x: Tensor, near: Tensor | None = None) -> Tensor:
        """What the next layer is given of (B, C, H, W): (B, D, h', w'); `near` is as of `forward`."""
        embedding, known = self.embedding, () if near is None else (near,)
        components = embedding.dictionary.components
        if components is None:
            same: Tensor = self(x, near)
            return same
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            gates = embedding.gate.pooled(x.float(), embedding.dictionary, None, embedding.pool, *known)
            return self._beside_input(F.conv2d(gates, components.T[:, :, None, None]), x.float())

    def _beside_input(self, out: Tensor, x: Tensor, wider: int = 1) -> Tensor:
        windows = self.embedding.gate.patch_size, self.embedding.pool * wider
        if not self.mirrored or self.residual is alone:  # an image's channels are no pairs
            return self.residual(out, x, *windows)
        halves = zip(out.chunk(2, 1), x.chunk(2, 1), strict=True)
        return joined(*(self.residual(half, own, *windows) for half, own in halves))


class ProbedLayer(nn.Module):
    """A layer and its probe, which are trained together."""

    def __init__(
        self,
        layer: PatchLayer,
        probe: nn.Module,
        shape: tuple[int, int, int],
        logits: str,
        number: int = 1,
        anew: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.probe = probe
        self.shape = shape  # (D, h', w') of what is handed on
        self.logits = logits  # what is done with those of the layers below, see `layerwise.config.Probe`
        self.number = number  # of the layer, from 1
        self.anew = anew  # its input is not what the layer below hands on but the images
        self.mirrored = layer.mirrored  # an image and its mirror image have the same logits

    def forward(self, x: Tensor, below: Tensor | None = None, near: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and the logits below, None if there are none, to (B, D, h', w') and (B, classes).

        The former is what is handed on. `near`, where it is known, is what the embedding's `ask` says of x.
        """
        read, out = self.layer.both(x, near)
        return out, self.classified(read, below)

    def said(self, x: Tensor, below: Tensor | None = None, near: Tensor | None = None) -> Tensor:
        """The logits alone, (B, classes), of what `forward` is given; what is handed on is not computed.

        Nor are the layer's windows, where the probe averages them anyway: its own are, at once.
        """
        wider = self._wider(*x.shape[2:])
        return self.classified(self.layer(x, near, wider), below, wider > 1)

    def _wider(self, height: int, width: int) -> int:
        """How many of the layer's windows, along a side, the probe averages, if they part an input evenly; or 1."""
        if type(self.probe) is not LinearProbe or not self.layer.linear:
            return 1
        embedding, pool = self.layer.embedding, self.probe.pool
        sides = (side - embedding.gate.patch_size + 1 for side in (height, width))
        return 1 if any(side % (embedding.pool * pool) for side in sides) else pool

    def classified(self, out: Tensor, below: Tensor | None = None, averaged: bool = False) -> Tensor:
        """Map what the probe reads (B, D, h', w') and the logits below to logits (B, classes).

        Averaged ones are the layer's own while it is trained. `averaged` says that `out` is, over the probe's windows.
        """
        seen = folded(out) if self.mirrored else out
        logits: Tensor = self.probe(seen, True) if averaged else self.probe(seen)
        if below is None or self.logits == "own" or (self.logits == "averaged" and self.training):
            return logits
        return logits + below if self.logits == "summed" else below + (logits - below) / self.number

    def alone(self, logits: Tensor, below: Tensor | None) -> Tensor:
        """The layer's own part in logits (B, classes) that it said in eval mode, when it was given those below."""
        if below is None or self.logits == "own":
            return logits
        return logits - below if self.logits == "summed" else below + self.number * (logits - below)


def learn_for(
    settings: Layer,
    number: int,
    patches: Tensor,
    generator: torch.Generator,
    progress: Progress = iter,
    kind: str | None = None,
) -> PatchDictionary:
    """The dictionary of layer `number`, from 1, of patches (M, P), as its settings say: see `learn_dictionary`.

    `kind` takes the place of the settings' dictionary.
    """
    size, mirror = settings.patch_size, None
    if settings.mirror:
        mirror = patch_mirror(patches.shape[1] // size**2, size, not settings.sees_images(number)).to(patches.device)
    kind, metric = kind or settings.dictionary, settings.gate.metric
    given = settings.atoms, generator, kind, settings.whitening, metric, progress, mirror
    return learn_dictionary(patches, *given, neighbors=settings.k, components=_components(settings))


def _components(settings: Layer) -> int:
    """How many there are of the gates in what a layer hands on."""
    return (settings.channels or 0) if settings.output == "gates" else 0


def build_layer(
    settings: Layer, dictionary: PatchDictionary, shape: tuple[int, int, int], classes: int, number: int = 1
) -> ProbedLayer:
    """Put layer `number` together for an input of shape (C, H, W): the one place where settings become modules.

    Raises ValueError where nothing is left of such an input.
    """
    layer = _patch_layer(settings, dictionary)
    d, h, w = output_shape(layer, shape)
    seen = (d // 2 if layer.mirrored else d, h, w)
    probe = PROBES[settings.probe.kind](seen, classes, settings.probe, settings.atoms)
    handed_on = output_shape(_Handing(layer), shape)
    return ProbedLayer(layer, probe, handed_on, settings.probe.logits, number, settings.input == "images")


class _Handing(nn.Module):
    """What a layer hands on, as a module."""

    def __init__(self, layer: PatchLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.handed_on(x)


def _patch_layer(settings: Layer, dictionary: PatchDictionary) -> PatchLayer:
    kind = getattr(PROBES[settings.probe.kind], "embedding", None) or EMBEDDINGS[settings.embedding]
    gate = GATES[settings.gate.kind](settings.patch_size, settings.k)
    embedding = kind(dictionary, gate, settings.maps.kind, settings.pool)
    channels = embedding.channels if dictionary.mirror is None else embedding.channels // 2
    norm = NORMS[settings.norm.kind](channels, settings.norm.eps)
    return PatchLayer(embedding, norm, settings.channels, RESIDUALS[settings.residual.kind])


def shape_through(settings: Layer, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape (D, h', w') that a layer makes of an input (C, H, W), before it has a dictionary; or ValueError."""
    dimension = shape[0] * settings.patch_size**2
    with torch.device("meta"):
        mean, whitening = torch.empty(dimension), torch.empty(dimension, dimension)
        mirror = torch.empty(dimension, dtype=torch.long) if settings.mirror else None
        components = torch.empty(settings.atoms, count) if (count := _components(settings)) else None
        atoms = torch.empty(settings.atoms, dimension)
        layer = _patch_layer(settings, PatchDictionary(mean, whitening, atoms, mirror, components))
    return output_shape(_Handing(layer), shape)
