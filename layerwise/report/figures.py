"""How figures are drawn: the same whatever the user's settings of Matplotlib are, for a file or for a page."""

import io
import logging
import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

Pixels = npt.NDArray[np.uint8]
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # which notes what it finds in settings, and lacks
INK, FAINT = "#24292f", "#8b949e"
TRAIN, VAL, TEST = FAINT, "#1769d2", "#d0470b"
SEVERAL = ("#2f81f7", "#d4680f", "#2da44e", "#bf4b8a", "#8250df", "#9a7d0a")
"""to be seen on white and on black"""
COLORS = {INK: "ink", FAINT: "faint", VAL: "val", TEST: "test"}
"""of figures, and the variables of a page that take their place there"""
STYLE: dict[Any, Any] = {name: value for name, value in rcParamsDefault.items() if name != "backend"}
STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "layerwise", "axes.spines.top": False, "axes.spines.right": False}
STYLE |= {f"{part}.color": INK for part in ("text", "xtick", "ytick")}
STYLE |= {"axes.labelcolor": INK, "axes.edgecolor": FAINT, "legend.frameon": False}
by_default = rc_context(STYLE)
"""decorates what draws"""


def blank(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def panels(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """An empty figure, in inches, with several axes side by side, of one vertical range."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, count, sharey=True, squeeze=False)[0])


@by_default
def as_array(figure: Figure) -> Pixels:
    """Draw a figure, (H, W, 3), with no screen and no state of the process."""
    canvas = FigureCanvasAgg(_plain(figure))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a font lacks a letter, of which it draws a box
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


@by_default
def as_svg(figure: Figure) -> str:
    """An <svg> element, transparent, whose letters and colors are those of the page that it stands in."""
    written = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        _plain(figure).savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = written.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several figures share a page
    svg = re.sub(r"(font: [\d.]+px) [^;\"]+", r"\1 inherit", svg).replace("font-family", "data-font")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    for color, name in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg


def _plain(figure: Figure) -> Figure:
    """Names are shown as they are, not as TeX."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    return figure
