"""configs/paper.yaml computes what the authors' formulas say: here in numpy, from the formulas alone."""

import numpy as np
import torch

from layerwise.dictionary import PatchDictionary
from layerwise.features import unit
from layerwise.layer import ProbedLayer
from layerwise.parsing import parse
from layerwise.patches import extract_patches
from tests.conftest import ROOT


def test_paper_recipe__is_the_authors_layer() -> None:
    config, _ = parse(
        [
            "--config",
            str(ROOT / "configs/paper.yaml"),
            "--layer.atoms=40",
            "--layers.1.neighbors=10",
            "--layer.neighbors=10",
            "--layer.patches=2000",
        ]
    )
    own = config.layer_config(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 14, 14), generator=generator)
    x = images.float() / 127.5 - 1
    sample = extract_patches(unit(x), 5).flatten(0, 2)
    dictionary = PatchDictionary.fit(sample, own, generator)
    torch.manual_seed(1)
    layer = ProbedLayer(dictionary, own, (3, 14, 14), 10).train()
    out, _ = layer(x, torch.zeros(6, 10))

    # patches of pixels from 0 to 1, whitened by 1 / (sqrt(lambda) + 0.001), not centred
    pixels = images.numpy() / 255.0
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (5, 5), (2, 3))  # (6, 3, 10, 10, 5, 5)
    patches = windows.transpose(0, 2, 3, 4, 5, 1).reshape(6, 10, 10, 75)
    values, vectors = np.linalg.eigh(np.cov(patches.reshape(-1, 75).T, bias=True))
    whitening = vectors @ np.diag(1 / (np.sqrt(values) + 0.001) ** 2) @ vectors.T
    ours = dictionary.whitening.double().numpy()
    np.testing.assert_allclose(ours @ ours.T, whitening, rtol=2e-3, atol=1e-2 * np.abs(whitening).max())
    assert not dictionary.mean.any()

    # training: pixels from -1 to 1; k nearest atoms; one affine map of the raw patch for each; averages of 4x4
    raw = patches * 2 - 1
    distances = np.linalg.norm((raw @ ours)[..., None, :] - dictionary.atoms.numpy(), axis=-1)
    near = distances.argsort(-1).argsort(-1) < 10
    maps = layer.layer.embedding.maps
    mapped = raw @ maps.weight.detach().numpy() + maps.bias.detach().numpy()
    gated = np.where(near, mapped, 0)
    pooled = np.stack([[gated[:, r : r + 4, c : c + 4].mean((1, 2)) for c in (0, 4, 8)] for r in (0, 4, 8)]).transpose(
        2, 3, 0, 1
    )
    # batch norm over the batch, then the 1x1 bottleneck
    spread = pooled.var((0, 2, 3), keepdims=True)
    normed = (pooled - pooled.mean((0, 2, 3), keepdims=True)) / np.sqrt(spread + 1e-5)
    mix = layer.layer.mix
    expected = np.einsum("dn,bnrc->bdrc", mix.weight.detach().numpy()[:, :, 0, 0], normed)
    expected += mix.bias.detach().numpy()[:, None, None]
    assert out.shape == (6, 32, 3, 3)
    np.testing.assert_allclose(out.detach().numpy(), expected, rtol=1e-3, atol=1e-3)


def test_paper_recipe__trains_as_the_authors_do() -> None:
    config, _ = parse(["--config", str(ROOT / "configs/paper.yaml")])
    optimizer, layer = config.optimizer, config.layer_config(1)
    assert (optimizer.name, optimizer.schedule, optimizer.epochs, optimizer.batch_size) == ("sgd", "steps", 200, 64)
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.003, 0.9, 0)
    assert (layer.atoms, layer.k, layer.sample, layer.channels, layer.pool) == (1024, 256, 262_144, 32, 4)
