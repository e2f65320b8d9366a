"""Small reference outputs, losses and gradients of every kind of layer, stack and recipe.

    python -m tests.golden            compares with tests/golden.safetensors, and says what differs
    python -m tests.golden --write    writes it

A change that is not meant to alter numbers leaves all of them as they are: to the bit on one processor, and within
rounding on another, as the processors' vectors have different lengths.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from layerwise.config import Layer
from layerwise.config.run import restore
from layerwise.data.images import Augmentation, Images
from layerwise.data.splits import DataSet
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.layer import ProbedLayer, build_layer
from layerwise.parsing import parse
from layerwise.run.run import Run
from layerwise.training.stack import train_stack

FILE = Path(__file__).parent / "golden.safetensors"
CPU = torch.device("cpu")
SMALL = {"patch_size": 3, "atoms": 8, "channels": 5, "pool": 2, "sampling": {"patches": 300}}
BARE = {"pool": 1, "norm": {"kind": "none"}, "channels": None}
UNCONSTRAINED = {"probe": {"kind": "unconstrained"}, **BARE}
LAYERS: dict[str, dict[str, Any]] = {
    "full": {},
    "hard": {"embedding": "hard"},
    "wide windows": {"pool": 4, "neighbors": 3},
    "every atom near": {"neighbors": 8, "pool": 1},
    "relu": {"gate": {"kind": "relu"}},
    "relu on raw patches": {"gate": {"kind": "relu"}, "maps": {"kind": "raw"}, "whitening": {"kind": "none"}},
    "unconstrained": UNCONSTRAINED,
    "unconstrained, raw": UNCONSTRAINED
    | {"maps": {"kind": "raw"}, "probe": {"kind": "unconstrained", "init": "random"}},
    "kth": {"gate": {"kind": "kth"}},
    "soft": {"gate": {"kind": "soft"}},
    "soft, hard": {"gate": {"kind": "soft"}, "embedding": "hard"},
    "triangle": {"gate": {"kind": "triangle"}},
    "cosine": {"gate": {"metric": "cosine"}},
    "sampled": {"dictionary": "sampled"},
    "gaussian": {"dictionary": "gaussian"},
    "uniform": {"dictionary": "uniform"},
    "kmeans_gaussian": {"dictionary": "kmeans_gaussian"},
    "zca": {"whitening": {"kind": "zca"}},
    "no whitening": {"whitening": {"kind": "none", "center": False}},
    "authors' whitening": {"whitening": {"formula": "deviation", "epsilon": 0.001, "center": False}},
    "strong whitening": {"whitening": {"epsilon": 100}},
    "raw maps": {"maps": {"kind": "raw"}},
    "no norm": {"norm": {"kind": "none"}},
    "damped": {"norm": {"eps": 0.01}},
    "no projection": {"channels": None},
    "concatenate": {"residual": {"kind": "concatenate"}},
    "gates handed on": {"output": "gates"},
    "probe": {"probe": {"pool": 2, "init": "random"}},
}
RECIPES = {
    "digits": (1, ["--layer.channels=6", "--layer.atoms=16", "--layers.1.atoms=8"]),
    "plain_digits": (1, ["--layer.channels=6", "--layer.atoms=16", "--optimizer.epochs=2"]),
    "cifar10": (
        3,
        [
            "--layer.channels=6",
            "--layer.atoms=24",
            "--layers.1.atoms=16",
            "--layers.1.neighbors=4",
            "--optimizer.epochs=2",
        ],
    ),
    "image_folder": (
        3,
        [
            "--layer.channels=6",
            "--layer.atoms=16",
            "--layer.neighbors=4",
            "--layers.1.atoms=8",
            "--layers.1.neighbors=4",
            "--features.views=0",
        ],
    ),
    "fashion_mnist": (
        1,
        [
            "--layer.channels=6",
            "--layer.atoms=16",
            "--layer.neighbors=4",
            "--layers.1.atoms=8",
            "--layers.1.neighbors=4",
        ],
    ),
    "paper": (
        3,
        [
            "--layer.channels=6",
            "--layer.atoms=16",
            "--layer.neighbors=4",
            "--layers.1.neighbors=5",
            "--layer.sampling.patches=500",
        ],
    ),
    "teacher": (2, ["--layer.channels=6", "--layer.atoms=8", "--layer.patch_size=3"]),
}


def images(count: int, channels: int, side: int, seed: int) -> Images:
    """Smooth random images of three classes, which differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    coarse = torch.rand(count, channels, side // 4, side // 4, generator=generator)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear") * 150 + 40.0 * labels[:, None, None, None]
    return Images((smooth + 20 * torch.rand(smooth.shape, generator=generator)).clamp(0, 255).byte(), labels)


def layer(settings: dict[str, Any], shape: tuple[int, int, int]) -> ProbedLayer:
    """An untrained layer on a dictionary of random images."""
    config: Layer = restore(Layer, SMALL | settings)
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(300, config.patch_size**2 * shape[0], generator=generator)
    patches = patches @ torch.randn(patches.shape[1], patches.shape[1], generator=generator) + 1
    dictionary = learn_dictionary(
        patches, config.atoms, generator, config.dictionary, config.whitening, config.gate.metric
    )
    torch.manual_seed(2)
    return build_layer(config, dictionary, shape, 3)


def thinned(values: Tensor) -> Tensor:
    """At most about 400 of many values, evenly spaced."""
    return values.flatten()[:: max(1, values.numel() // 400)]


def single_layers() -> Iterator[tuple[str, Tensor]]:
    """Of each kind of layer: output and loss of a training step, its gradients, and the output after it."""
    for name, settings in LAYERS.items():
        shape = (2, 11, 10)
        own = layer(settings, shape)
        generator = torch.Generator().manual_seed(3)
        x, below = torch.randn(6, *shape, generator=generator), torch.randn(6, 3, generator=generator)
        with torch.no_grad():
            for parameter in own.probe.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        out = own.layer(x)
        logits = own.classified(out, below)
        loss = F.cross_entropy(logits, torch.arange(6) % 3)
        torch.autograd.backward(loss)
        yield f"{name}: atoms", own.layer.embedding.dictionary.atoms
        yield f"{name}: output", thinned(out.detach())
        yield f"{name}: loss", loss.detach()
        gradients = [p.grad.flatten() for p in own.parameters() if p.grad is not None]
        yield f"{name}: gradients", thinned(torch.cat(gradients))
        yield f"{name}: evaluated", own.eval()(x, below)[1].detach()


def recipes() -> Iterator[tuple[str, Tensor]]:
    """Of each recipe: what the epochs of a stack of two came to, the weights, and the logits of test images."""
    for name, (channels, settings) in RECIPES.items():
        short: list[str] = [] if "--optimizer.epochs=2" in settings else ["--optimizer.epochs=1"]
        given = ["--depth=2", "--optimizer.batch_size=16", *settings, *short]
        config = parse([f"--config=configs/{name}.yaml", *given])[0]
        side = {"plain_digits": 8, "teacher": 8}.get(name, 16)
        train, val, test = (images(count, channels, side, seed) for seed, count in enumerate((120, 30, 12)))
        augmentation = Augmentation(name == "cifar10", 2, config.data.border)
        data = DataSet(["a", "b", "c"], train, val, test, augmentation)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(folder)
            run.start(config, data)
            stack, records, _ = train_stack(config, data, run, CPU)
            run.release()
        epochs = [[epoch["val_accuracy"], epoch["val_loss"]] for record in records for epoch in record.epochs]
        yield f"{name}: epochs", torch.tensor(epochs)
        for i, top in enumerate(stack.layers, 1):
            yield f"{name}: weights {i}", torch.cat([p.flatten() for p in top.parameters()])
        logits = stack(test.pixels[:].float() / 127.5 - 1)[1]
        assert logits is not None
        yield f"{name}: logits", logits


def computed() -> dict[str, Tensor]:
    """Everything that the file holds, as the code computes it now."""
    return {name: value.contiguous() for part in (single_layers, recipes) for name, value in part()}


def main(arguments: list[str]) -> int:
    """Write or compare."""
    torch.set_num_threads(1)
    found = computed()
    if arguments == ["--write"]:
        save_file(found, FILE)
        return 0
    expected = load_file(FILE)
    differing = [name for name in found.keys() | expected.keys() if name not in found or name not in expected]
    differing += [name for name in found if name in expected and not torch.equal(found[name], expected[name])]
    for name in sorted(differing):
        print(name, "" if name not in found or name not in expected or found[name].shape != expected[name].shape
              else f"differs by {float((found[name] - expected[name]).abs().max()):.2g}")  # fmt: skip
    print(f"{len(found) - len(differing)} of {len(expected)} equal to the bit")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
