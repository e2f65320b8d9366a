"""How fast a GPU is: at matrix products, and at training steps against the plain way of writing them."""

from functools import partial

import torch

from layerwise.experiments.benchmark.layers import Row, measure_layer
from layerwise.experiments.benchmark.steps import median_seconds
from layerwise.experiments.gpu.findings import Check, Finding
from layerwise.experiments.gpu.kernels import Shape
from layerwise.ops import multiplied_with

LEAST = {"computed": 20.0, "known": 40.0}
"""times as fast as the plain step, by what is known of the gates, that a step with 1,024 atoms is to be on a GPU"""
LEAST_SHARE = 0.3
"""of the rate of matrix products, at least"""


def checks(layers: list[Shape], batch: int, side: int, turns: int, device: torch.device) -> list[Check]:
    """The rate of products of matrices with so many rows, and the benchmark's rows of each layer."""
    found = [Check("matrix products", partial(_products, side, device))]
    for layer, shape in layers:
        name = f"benchmark, {'×'.join(map(str, shape))}, N = {layer.atoms}, k = {layer.k}"
        found.append(Check(name, partial(_benchmark, name, (layer, shape), batch, turns, device)))
    return found


def _products(side: int, device: torch.device) -> list[Finding]:
    """The rate of a product of float32, exact and by TF32, in 10^12 additions and multiplications a second."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, side, side, generator=generator).to(device)
    found = []
    for precision, name in (("highest", "float32"), ("high", "TF32")):
        with multiplied_with(precision):
            rate = 2 * side**3 / median_seconds(lambda: a @ b, device) / 1e12
        found.append(Finding(f"matrix products, {name}, {side}", f"{rate:.3g} TFLOP/s", value=rate))
    return found


def _benchmark(name: str, of: Shape, batch: int, turns: int, device: torch.device) -> list[Finding]:
    rows = measure_layer(*of, batch, device, turns)
    return [finding for row in rows for finding in _findings(name, row, device)]


def _findings(name: str, row: Row, device: torch.device) -> list[Finding]:
    what, found = f"{name}, {row.backend}, gates {row.gates}", list[Finding]()
    told = f"{row.images_per_second:,.0f} images/s" + ("" if row.vs_plain is None else f", {row.vs_plain:.2f} ÷ plain")
    peak = "" if row.peak_bytes is None else f", {row.peak_bytes / 2**30:.2f} GiB"
    told += f", {row.vs_floor:.2f} ÷ products{peak}"
    found.append(Finding(what, told, "as the reference", row.agrees, row.images_per_second))
    if row.backend != "cuda" or row.atoms != 1024 or row.vs_plain is None:
        return found
    for unit, value, least in (("plain", row.vs_plain, LEAST[row.gates]), ("products", row.vs_floor, LEAST_SHARE)):
        found.append(Finding(f"{what}, ÷ {unit}", f"{value:.2f}", f"≥ {least:g}", value >= least, value))
    return found
