"""configs/paper.yaml and the rows of Table 1 compute what the authors' formulas say: in numpy, from those alone."""

import numpy as np
import pytest
import torch

from layerwise.config.choices import OPTIMIZERS, SCHEDULES
from layerwise.data.images import to_input, to_unit
from layerwise.experiments.paper.reproduce import configured, rows_at
from layerwise.experiments.paper.tables import TABLES
from layerwise.nn.dictionary import learn_dictionary
from layerwise.nn.embedding import RawMaps
from layerwise.nn.layer import build_layer
from layerwise.nn.probe import LinearProbe
from layerwise.ops import extract_patches
from layerwise.parsing import parse
from tests.conftest import ROOT

SMALL = ["--layer.atoms=40", "--layers.1.neighbors=10", "--layer.neighbors=10", "--layer.sampling.patches=2000"]


@pytest.mark.parametrize("row", [row.name for row in TABLES["table1"].rows])
def test_rows_of_table_1__are_the_authors_layers(row: str) -> None:
    own = configured(rows_at(TABLES["table1"], "full"), "table1-full", 1, SMALL)[row][0].config.layer_at(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 14, 14), generator=generator, dtype=torch.uint8)
    assert own.sampling.pixels == "unit"
    sampled = extract_patches(to_unit(images), 5).flatten(0, 2)
    dictionary = learn_dictionary(sampled, own.atoms, generator, own.dictionary, own.whitening, own.gate.metric)
    torch.manual_seed(1)
    layer = build_layer(own, dictionary, (3, 14, 14), 10).train()
    out, logits = layer(to_input(images), torch.randn(6, 10))

    # patches of pixels from 0 to 1, whitened by 1 / (sqrt(lambda) + 0.001), not centred; random ones are not whitened
    pixels = images.numpy() / 255.0
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (5, 5), (2, 3))  # (6, 3, 10, 10, 5, 5)
    patches = windows.transpose(0, 2, 3, 4, 5, 1).reshape(6, 10, 10, 75)
    values, vectors = np.linalg.eigh(np.cov(patches.reshape(-1, 75).T, bias=True))
    whitening = vectors @ np.diag(1 / (np.sqrt(values) + 0.001) ** 2) @ vectors.T
    if "data patches" not in row:
        whitening = np.eye(75)
    ours = dictionary.whitening.double().numpy()
    np.testing.assert_allclose(ours @ ours.T, whitening, rtol=2e-3, atol=1e-2 * np.abs(whitening).max())
    assert not dictionary.mean.any()
    atoms = dictionary.atoms.numpy()
    if "random" in row:  # centroids of 15 standard normal patches each
        assert 0 < atoms.var() < 0.5

    # training: pixels from -1 to 1; k nearest atoms; one affine map of the raw patch for each; averages of 4x4
    raw = patches * 2 - 1
    distances = np.linalg.norm((raw @ ours)[..., None, :] - atoms, axis=-1)
    near = distances.argsort(-1).argsort(-1) < 10
    if "hard" in row:
        embedded = near.astype(float)
    else:
        maps = layer.layer.embedding.maps
        assert isinstance(maps, RawMaps)
        mapped = raw @ maps.weight.detach().numpy() + maps.bias.detach().numpy()
        embedded = np.maximum(mapped, 0) if "CNN" in row else np.where(near, mapped, 0)
    pooled = np.stack(
        [[embedded[:, r : r + 4, c : c + 4].mean((1, 2)) for c in (0, 4, 8)] for r in (0, 4, 8)]
    ).transpose(2, 3, 0, 1)
    # batch norm over the batch, then the 1x1 bottleneck and the linear classifier
    spread = pooled.var((0, 2, 3), keepdims=True)
    normed = (pooled - pooled.mean((0, 2, 3), keepdims=True)) / np.sqrt(spread + 1e-5)
    assert isinstance(layer.layer.projection, torch.nn.Conv2d) and isinstance(layer.probe, LinearProbe)
    projection, linear = layer.layer.projection, layer.probe.linear
    assert projection.bias is not None
    expected = np.einsum("dn,bnrc->bdrc", projection.weight.detach().numpy()[:, :, 0, 0], normed)
    expected += projection.bias.detach().numpy()[:, None, None]
    assert out.shape == (6, 32, 3, 3)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-3, atol=2e-3)
    answers = expected.reshape(6, -1) @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
    np.testing.assert_allclose(logits.detach().numpy(), answers, rtol=1e-3, atol=2e-3)


def test_paper_recipe__begins_as_pytorch_begins() -> None:
    config = parse(["--config", str(ROOT / "configs/paper.yaml"), *SMALL])[0]
    own = config.layer_at(1)
    patches = torch.rand(2000, 75, generator=torch.Generator().manual_seed(0))
    dictionary = learn_dictionary(patches, own.atoms, torch.Generator(), own.dictionary, own.whitening)
    torch.manual_seed(0)
    layer = build_layer(own, dictionary, (3, 32, 32), 10)
    maps = layer.layer.embedding.maps
    assert isinstance(maps, RawMaps) and isinstance(layer.probe, LinearProbe)
    assert isinstance(layer.layer.projection, torch.nn.Conv2d)
    for weight, inputs in (
        (maps.weight, 75),
        (maps.bias, 75),
        (layer.layer.projection.weight, 40),
        (layer.probe.linear.weight, 32 * 7 * 7),
    ):  # uniform between plus and minus one over the root of the inputs
        assert float(weight.detach().abs().max()) <= inputs**-0.5
        assert float(weight.detach().std()) == pytest.approx((3 * inputs) ** -0.5, rel=0.25)


def test_paper_recipe__trains_as_the_authors_do() -> None:
    config = parse(["--config", str(ROOT / "configs/paper.yaml")])[0]
    optimizer, layer = config.optimizer, config.layer_at(1)
    assert (optimizer.name, optimizer.schedule, optimizer.epochs, optimizer.batch_size) == ("sgd", "steps", 200, 64)
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.003, 0.9, 0)
    assert (layer.atoms, layer.k, layer.sample, layer.channels, layer.pool) == (1024, 256, 262_144, 32, 4)
    assert (config.data.crop, config.data.border, config.features.views) == (4, "black", 0)


def test_paper_recipe__divides_its_rate_by_10_after_half_and_three_quarters() -> None:
    config = parse(["--config", str(ROOT / "configs/paper.yaml")])[0]
    weights = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = OPTIMIZERS[config.optimizer.name]([{"params": [weights]}], config.optimizer)
    schedule = SCHEDULES[config.optimizer.schedule](optimizer, config.optimizer, 200)
    rates = []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.003] * 100 + [0.0003] * 50 + [0.00003] * 50)
    assert optimizer.param_groups[0]["momentum"] == 0.9 and optimizer.param_groups[0]["weight_decay"] == 0
