"""Every kind of layer as an exported program, for batches of any size."""

from typing import Any

import pytest
import torch
from torch.export import Dim

from layerwise.config import Layer
from layerwise.config.choices import EMBEDDINGS, GATES, MAPS, PROBES, RESIDUALS
from layerwise.config.run import restore
from layerwise.nn.stack import FrozenStack
from tests.nn.layers import make_layer

SMALL = {"patch_size": 3, "atoms": 8, "channels": 5, "pool": 2, "probe": {"init": "random"}}
BARE = {"pool": 1, "norm": {"kind": "none"}, "channels": None}
USUAL = Layer()
KINDS: dict[str, dict[str, Any]] = {
    **{f"gate {kind}": {"gate": {"kind": kind}} for kind in GATES},  # one of which is the usual layer
    **{f"embedding {kind}": {"embedding": kind} for kind in EMBEDDINGS if kind != USUAL.embedding},
    **{f"maps {kind}": {"maps": {"kind": kind}} for kind in MAPS if kind != USUAL.maps.kind},
    **{f"residual {kind}": {"residual": {"kind": kind}} for kind in RESIDUALS if kind != USUAL.residual.kind},
    "output gates": {"output": "gates"},
    **{f"probe {kind}": {"probe": {"kind": kind, "init": "random"}, **BARE} for kind in PROBES},
}


@pytest.mark.parametrize("kind", KINDS)
def test_export__computes_the_same_for_any_batch(kind: str, generator: torch.Generator) -> None:
    settings = restore(Layer, SMALL | KINDS[kind])
    stack = FrozenStack([make_layer(settings, (2, 9, 8))])
    x, below = torch.randn(7, 2, 9, 8, generator=generator), torch.randn(7, 3, generator=generator)
    any_size = {0: Dim("batch")}
    whole = torch.export.export(stack, (x[:4],), dynamic_shapes=(any_size,)).module()
    top = stack.layers[0]
    layer = torch.export.export(top, (x[:4], below[:4]), dynamic_shapes=(any_size, any_size)).module()
    for n in (1, 7):
        pairs = [*zip(whole(x[:n]), stack(x[:n]), strict=True)]
        pairs += zip(layer(x[:n], below[:n]), top(x[:n], below[:n]), strict=True)
        for ours, theirs in pairs:
            assert theirs.std() > 0
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)  # of plain operators, in another order
