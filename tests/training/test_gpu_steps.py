"""What a training step does on a GPU, without one: all that it computes with lies there, and it waits for nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from layerwise.config import Features, Layer, Optimizer
from layerwise.config.choices import OPTIMIZERS
from layerwise.config.layer import Gate, Maps, Probe
from layerwise.data.batches import View
from layerwise.data.images import Augmentation
from layerwise.data.views import ViewStore
from layerwise.nn.stack import FrozenStack
from layerwise.training.inputs import LayerData
from layerwise.training.module import LayerModule
from tests.fake_gpu import FakeGPU, backward
from tests.nn.layers import SMALL, make_layer
from tests.training.worlds import world

pytestmark = pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
GPU = torch.device("cuda:0")
MOVED, STILL = Augmentation(flip=True, crop=2), Augmentation(flip=False, crop=0)
FEW = replace(SMALL, atoms=70, neighbors=2, pool=1)
"""near atoms are kept as indices"""


def on(free: int, monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    """A GPU with so many bytes left."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 1 << 40))
    return FakeGPU()


def made(
    settings: Layer, below: list[Layer], views: int, augmentation: Augmentation, ask: bool
) -> tuple[LayerData, nn.Module]:
    """A layer's inputs, and the layer; so many views of what is below it are stored."""
    layers, shape = [], (1, 6, 6)
    for own in below:
        layers.append(make_layer(own, shape))
        shape = layers[-1].shape
    layer, stack = make_layer(settings, shape), FrozenStack(layers)
    with torch.no_grad():
        layer.to(GPU)
        stack.to(GPU)
    margin = 2 if views and augmentation.crop else 0
    store = ViewStore(Features(views=views), world(20, augmentation, 3), 5, GPU)
    for images, stored in ((store.images, store.train), (store.val_images, store.val)):
        for _ in range(views):
            c, h, w = shape
            features = torch.zeros(len(images), h + margin, w + margin, c, dtype=torch.float16, device=GPU)
            logits = torch.zeros(len(images), margin + 1, margin + 1, 3, device=GPU)
            stored.append(View(features, logits, images.labels, margin))
    asked = layer.layer.embedding.ask if ask else None
    return LayerData(stack, store, 8, 9, asked, settings.patch_size, 20, layer), layer


def waits(gpu: FakeGPU, data: LayerData, layer: nn.Module, folder: Path, name: str = "adamw") -> list[str]:
    """What the CPU waits for in the steps of two epochs, each epoch's first left out, as is what it waits for once.

    Fails where a part of a batch is not on the GPU, or something is not learned.
    """
    module = LayerModule(layer, 1, 3, Optimizer(name), 2)
    module.trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=folder)
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer, found = OPTIMIZERS[name]([{"params": trained}], module.config), []
    for epoch in range(2):
        for i, batch in enumerate(data.epoch(epoch)):
            assert all(part is None or part.is_cuda for part in batch)
            backward(module.loss(batch, i))
            assert all(parameter.grad is not None for parameter in trained)
            optimizer.step()
            optimizer.zero_grad()
            found += gpu.waits if i else []
            gpu.waits.clear()
        assert i == 1
    return found


def test_backward__is_that_of_torch(generator: torch.Generator) -> None:
    x, layer = torch.randn(4, 1, 6, 6, generator=generator), make_layer(SMALL, (1, 6, 6))
    nn.init.normal_(layer.probe.linear.weight, generator=generator)  # type: ignore[union-attr, arg-type]
    found = []
    for differentiate in (backward, torch.autograd.backward):
        layer.zero_grad()
        differentiate(layer(x)[1].square().sum())
        found.append([parameter.grad for parameter in layer.parameters()])
    assert len(found[0]) == 8 and all(a is not None for a in found[0])
    torch.testing.assert_close(*found)


KINDS = {
    "bits": SMALL,
    "indices": FEW,
    "relu": replace(SMALL, gate=Gate("relu")),
    "soft": replace(SMALL, gate=Gate("soft")),
    "unconstrained": replace(SMALL, maps=Maps("raw"), probe=Probe("unconstrained"), channels=None, pool=1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_step__of_images__waits_for_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with on(1 << 40, monkeypatch) as gpu:
        data, layer = made(KINDS[kind], [], 0, MOVED, True)
        assert data.store.images.pixels.device.type == "cuda"
        assert waits(gpu, data, layer, tmp_path, "sgd" if kind == "indices" else "adamw") == []
        assert bool(data.known) == (kind not in ("relu", "soft"))


@pytest.mark.parametrize("augmentation", [MOVED, STILL])
@pytest.mark.parametrize("ask", [True, False])
@pytest.mark.parametrize("views", [0, 2])
def test_step__upon_layers__waits_for_nothing(
    views: int, ask: bool, augmentation: Augmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on(1 << 40, monkeypatch) as gpu:
        data, layer = made(FEW, [FEW], views, augmentation, ask)
        assert waits(gpu, data, layer, tmp_path) == []
        assert bool(data.known) == (ask and views > 0)


@pytest.mark.parametrize("augmentation", [MOVED, STILL])
def test_step__where_there_is_no_room__waits_for_nothing_but_what_comes_for_the_first_time(
    augmentation: Augmentation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on(0, monkeypatch) as gpu:
        data, layer = made(SMALL, [], 0, augmentation, True)
        assert data.store.images.pixels.device.type == "cpu"
        found = waits(gpu, data, layer, tmp_path)
        assert found and all("from cuda to cpu" in one for one in found)  # which atoms are near, to be kept
