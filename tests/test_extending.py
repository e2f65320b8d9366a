"""What can be added from outside the package, by a decorator: a stack is trained on all of it together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import layerwise
from layerwise import config
from layerwise.config import Config, Data, Gate, Layer, Optimizer, Probe, Wandb
from layerwise.config.choices import DATASETS, DICTIONARIES, EMBEDDINGS, GATES, OPTIMIZERS, PROBES
from layerwise.data.images import Images, to_input
from layerwise.data.splits import RawData, load_data
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.embedding import AffineMaps, Embedding, Full
from layerwise.nn.gates import DistanceGate, Nearest
from layerwise.nn.kmeans import Progress
from layerwise.parsing import parse
from layerwise.run.run import Run
from tests.conftest import SMALL

CORNERS = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Takes away, at the end, what a test adds; and a list for it to note what was called."""
    for choices in (GATES, EMBEDDINGS, DICTIONARIES, DATASETS, OPTIMIZERS, PROBES):
        loaded = {name: choices[name] for name in choices}
        monkeypatch.setattr(choices, "_made", loaded)
    yield []


def test_everything_added__is_trained_on_together(used: list[str], tmp_path: Path) -> None:
    @GATES("farthest")
    class Farthest(DistanceGate):
        """1 for the atom that is farthest away."""

        def weights(self, distance: Tensor, k: int) -> Tensor:
            used.append("gate")
            return (distance == distance.max(-1, keepdim=True).values).to(distance.dtype)

    @EMBEDDINGS("squared")
    class Squared(Full):
        """The square of Phi_full's averages."""

        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            used.append("embedding")
            return super().forward(x).square()

    @DICTIONARIES("corners")
    def corners(patches: Tensor, count: int, generator: torch.Generator, progress: Progress) -> Tensor:
        """The corners of a square."""
        used.append("dictionary")
        return CORNERS[:count].to(patches)

    @DATASETS("dots")
    def dots(settings: Data) -> RawData:
        """Images of two numbers, which are on the same side of the middle or not."""
        used.append("data")
        generator = torch.Generator().manual_seed(0)
        side = torch.randint(0, 2, (400, 2, 1, 1), generator=generator)
        pixels = 128 * side + torch.randint(20, 100, side.shape, generator=generator)
        images = Images(pixels.byte(), (side.sum((1, 2, 3)) == 1).long())
        return RawData(["same", "different"], images, images.subset(torch.arange(100)), flip=False)

    @OPTIMIZERS("signs")
    def signs(groups: list[dict[str, Any]], settings: config.Optimizer) -> torch.optim.Optimizer:
        """Goes by the signs of the gradient alone."""

        class Signs(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                used.append("step")
                loss = closure()
                for group in self.param_groups:
                    for parameter in group["params"]:
                        assert parameter.grad is not None
                        parameter.grad.sign_()
                super().step()
                return loss

        return Signs(groups, lr=settings.learning_rate)

    @PROBES("three")
    class Three(nn.Module):
        """Three times a linear classifier."""

        embedding: ClassVar[type[Embedding] | None] = None

        def __init__(self, shape: tuple[int, int, int], classes: int, settings: Probe, atoms: int) -> None:
            super().__init__()
            assert (shape, classes, atoms) == ((6, 1, 1), 2, 4)
            self.linear = nn.Linear(6, classes)

        def forward(self, x: Tensor) -> Tensor:
            used.append("probe")
            logits: Tensor = 3 * self.linear(x.flatten(1))
            return logits

    settings = Config(
        data=Data("dots"),
        layer=Layer(
            patch_size=1,
            atoms=4,
            channels=6,
            pool=1,
            embedding="squared",
            dictionary="corners",
            gate=Gate("farthest"),
            probe=Probe("three"),
        ),
        optimizer=Optimizer("signs", epochs=10, batch_size=30, learning_rate=0.01),
        wandb=Wandb("disabled"),
        trainer=config.Trainer("cpu"),
    )
    run = layerwise.train(settings, tmp_path / "run")

    assert set(used) == {"gate", "embedding", "dictionary", "data", "step", "probe"}
    assert used.count("data") == used.count("dictionary") == 1
    assert used.count("step") == 10 * (360 // 30)  # a tenth is held out
    (record,) = run.records
    assert record.classes == ["same", "different"] and record.output_shape == [6, 1, 1]
    assert record.config.gate.kind == "farthest" and record.config.probe.kind == "three"
    assert record.val_accuracy > 0.95
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] > 0.95

    trained = layerwise.load(tmp_path / "run").stack
    (own,) = trained.layers
    embedding, probe = own.layer.embedding, own.probe
    assert type(embedding) is Squared and type(embedding.gate) is Farthest and type(probe) is Three
    assert torch.equal(embedding.dictionary.atoms, CORNERS)

    # the whole of it, by formulas
    x = to_input(load_data(settings.data, 0).test.pixels[:])
    whitened = embedding.dictionary.whiten(x[:, :, 0, 0])
    far = torch.zeros(100, 4)
    opposite = [int(2 * (a < 0) + (b < 0)) for a, b in whitened.tolist()]  # the corner of the other signs
    far[torch.arange(100), opposite] = 1
    assert isinstance(embedding.maps, AffineMaps)
    squared = (far * (whitened @ embedding.maps.weight + embedding.maps.bias)).square()
    norm, projection = own.layer.norm, own.layer.projection
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(projection, nn.Conv2d)
    assert norm.running_mean is not None and norm.running_var is not None
    normed = (squared - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    out = normed @ projection.weight[:, :, 0, 0].T
    if projection.bias is not None:
        out = out + projection.bias
    logits = 3 * (out @ probe.linear.weight.T + probe.linear.bias)
    torch.testing.assert_close(trained(x)[1], logits, atol=1e-4, rtol=1e-4)


def test_what_was_added__is_gone_again() -> None:
    assert "farthest" not in GATES and "dots" not in DATASETS and "nearest" in GATES
    with pytest.raises(config.SettingError, match="layer.gate.kind: farthest is not one of"):
        Config(layer=Layer(gate=Gate("farthest")))


def test_a_gate_added__can_be_named_on_the_command_line(used: list[str], tmp_path: Path) -> None:
    near = []

    @GATES("nearest_half")
    class NearestHalf(Nearest):
        """1 for the nearer half of the k nearest."""

        def pooled(  # type: ignore[override]
            self, x: Tensor, dictionary: PatchDictionary, maps: Tensor | None, window: int
        ) -> Tensor:
            near.append(self.neighbors // 2)
            half = Nearest(self.patch_size, self.neighbors // 2)
            return half.pooled(x, dictionary, maps, window)

    arguments = ["--layer.gate.kind=nearest_half", "--layer.neighbors=6", "--optimizer.batch_size=64"]
    settings = parse([*SMALL, *arguments, "--wandb.mode=disabled"])[0]
    run = layerwise.train(settings, tmp_path / "run")
    assert near and set(near) == {3}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] > 0.5
    assert type(Run(run.path).stack().layers[0].layer.embedding.gate) is NearestHalf
