"""The one source of batches: of images or of stored views, in order or shuffled, pushed through frozen layers or not.

Shapes: n images, B batch, C channels, H W side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor, nn

from layerwise import processes
from layerwise.data.crops import Shifts
from layerwise.data.images import Augmentation, Drawn, Images, moved, to_input
from layerwise.data.known import Chosen, Known
from layerwise.data.rows import Rows, Stored
from layerwise.nn.outline import most_numbers
from layerwise.nn.stack import FrozenStack

TOGETHER = 256
"""images a batch, at most, where nothing is trained"""
ROOM = 1 << 27
"""bytes of the largest tensor that is made of such a batch, at most; two or three of that size are held at once"""
Batch = tuple[Tensor, Tensor | None, Tensor, Tensor | None]
"""input (B, C, H, W) float32, logits of the layers below (B, classes) or None if they are not known, labels (B,);
which atoms are near, (B, h, w, S), or None where that is not known"""


def images_in_room(numbers: int) -> int:
    """How many images are computed together where nothing is trained, if so many numbers are made of one at once."""
    return max(1, min(TOGETHER, ROOM // (4 * numbers)))


@dataclass(frozen=True)
class View:
    """Every image as it comes out of a stack, in one view of it."""

    features: Tensor | Stored
    """(n, H', W', C), float16 for training and float32 for validation"""
    logits: Tensor | Stored
    """(n, O, O, classes) float32, of each crop; of no class where nobody reads them"""
    labels: Tensor
    """(n,)"""
    margin: int = 0
    """O - 1, positions that a crop (C, H, W) can be shifted by: H' = H + margin"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a crop."""
        h, w, c = self.features.shape[1:]
        return c, h - self.margin, w - self.margin


@dataclass(eq=False)
class Batches:
    """One pass over images or a view, the same at every pass."""

    source: Images | View
    """where it lies is where the batches are made"""
    size: int = 0
    """images a batch; 0: as many as there is room for where nothing is trained"""
    device: torch.device | str = "cpu"
    """where the batches go"""
    stack: FrozenStack = field(default_factory=FrozenStack)
    """that the input is pushed through"""
    above: Sequence[nn.Module] = ()
    """layers that it will go through next, which take room, too"""
    _: KW_ONLY
    shuffle: bool = False
    """in random order, without what does not fill the last batch, so that each step weighs the same"""
    augmentation: Augmentation | Shifts | None = None
    """of images, or of a view's crops; None: all of what there is"""
    drawn: Drawn | None = None
    """of all images, where it is given and not drawn anew"""
    seed: int = 0
    """of order and augmentation; every epoch of every layer has its own"""
    pixels: Callable[[Tensor], Tensor] = to_input
    """how pixels become input"""
    said: Tensor | None = None
    """of images, the logits of other columns, (n, classes), which those of the stack are joined with"""
    known: Known | None = None
    """what is known of the inputs"""
    chosen: Tensor | None = None
    """the images that are passed over, (m,) int64; None for all"""
    divided: bool = False
    """each of several processes has its part of every batch"""

    def __post_init__(self) -> None:
        self.size = self.size or images_in_room(most_numbers([*self.stack.layers, *self.above], self.source.shape))

    def __len__(self) -> int:
        n = len(self.source if self.chosen is None else self.chosen)
        return n // self.size if self.shuffle else -(-n // self.size)

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.arange(len(self.source)) if self.chosen is None else self.chosen
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=generator)]
        order = order[: len(self) * self.size]
        drawn = self._drawn(len(order) if self.shuffle else len(self.source), generator)
        if drawn and self.chosen is not None and not self.shuffle:
            drawn = drawn.part(order)  # as they are drawn of all
        plan = Chosen(order, drawn).known_to(self.device)
        own = processes.own_part(self.size) if self.divided else slice(0, self.size)
        for start in range(0, len(order), self.size):
            part = slice(start + own.start, start + own.stop)
            chosen, logits, pixels = plan.part(part), None, torch.empty(0)
            if isinstance(self.source, View):
                x, logits, pixels = self._of_view(self.source, chosen)
            else:
                here = chosen.beside(self.source.pixels)
                pixels = shown = self.source.pixels[here.index]
                if isinstance(self.augmentation, Augmentation) and here.drawn:
                    shown = self.augmentation(pixels, here.drawn)
                x = self.pixels(moved(shown, self.device))
                if self.said is not None:
                    logits = self._taken(self.said, chosen)
            if len(self.stack):
                x, logits = self.stack(x, logits)
            labels = self._taken(self.source.labels, chosen)
            near = None if self.known is None else self.known(chosen, x, pixels)
            yield x, logits, labels, near

    def _of_view(self, view: View, chosen: Chosen) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, C, H, W) and logits (B, classes) of crops, or those of all; and the whole that they are of."""
        here = chosen.beside(view.features)
        shown = whole = view.features[here.index]
        logits = self._taken(view.logits, chosen)
        if isinstance(self.augmentation, Shifts) and here.drawn:
            shown = self.augmentation.part(torch.arange(len(whole), device=whole.device), here.drawn, len(whole)).of(
                whole
            )
            place = chosen.beside(logits).drawn
            assert place is not None
            logits = logits[torch.arange(len(logits), device=logits.device), *place.shift[:, :, 0]]
        elif not view.margin:
            logits = logits[:, 0, 0]
        return moved(shown, self.device).permute(0, 3, 1, 2).float(), logits, whole

    def _taken(self, values: Tensor | Rows, chosen: Chosen) -> Tensor:
        """Those of the chosen, where the batches go."""
        return moved(values[chosen.beside(values).index], self.device)

    def _drawn(self, count: int, generator: torch.Generator) -> Drawn | None:
        """How so many images are augmented: drawn for a batch at a time, if shuffled, else whatever a batch's size."""
        if self.augmentation is None or self.drawn:
            return self.drawn
        parts = torch.split(torch.empty(count), self.size if self.shuffle else TOGETHER)
        drawn = [self.augmentation.draw(len(part), generator) for part in parts]
        return Drawn(torch.cat([one.shift for one in drawn], 1), torch.cat([one.flipped for one in drawn]))
