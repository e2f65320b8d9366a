"""What is measured of patches, against brute force, manifolds of known dimension, and the command as a process."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from layerwise.config import SettingError
from layerwise.experiments.patches.clusters import (
    KINDS,
    Band,
    bands,
    log_spaced,
    measure,
    recommended_atoms,
    shuffled,
    unit,
    whitened,
)
from layerwise.experiments.patches.extent import (
    NEIGHBORS,
    effective_rank,
    greedy_cover,
    levina_bickel,
    neighbor_distances,
    slope,
    spectrum,
    two_nn,
)
from layerwise.experiments.patches.measure import Asked
from layerwise.experiments.patches.measure import patches as measure_patches
from layerwise.experiments.patches.sources import of_photographs
from tests.conftest import SMALL, Command


def clusters(generator: torch.Generator, count: int = 8, points: int = 4000) -> Tensor:
    centers = torch.randn(count, 12, generator=generator)
    return centers[torch.randint(count, (points,), generator=generator)] + 0.02 * torch.randn(
        points, 12, generator=generator
    )


def test_log_spaced__from_two_to_the_most() -> None:
    assert log_spaced(1024, 20)[0] == 2 and log_spaced(1024, 20)[-1] == 1024
    assert len(log_spaced(1024, 20)) == 20
    assert log_spaced(3, 20) == [2, 3]
    assert log_spaced(2, 20) == [2]


def test_unit__drops_what_has_no_direction(generator: torch.Generator) -> None:
    patches = torch.randn(10, 5, generator=generator)
    patches[3] = 0
    points = unit(patches)
    assert points.shape == (9, 5)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(9))


def test_shuffled__keeps_each_patch_s_numbers(generator: torch.Generator) -> None:
    patches = torch.randn(50, 6, generator=generator)
    other = shuffled(patches, generator)
    assert not torch.equal(other, patches)
    assert torch.equal(other.sort(1).values, patches.sort(1).values)


def test_measure__is_the_distance_of_held_out_patches_to_centroids(generator: torch.Generator) -> None:
    patches = clusters(generator)
    distance, radius = measure(patches, [2, 8], generator)
    points = unit(patches)
    held_out, rest = points[:1000], points[1000:]
    assert distance[1] < 0.05 < distance[0]
    nearest = torch.cdist(held_out, rest).min(1).values
    assert distance[1] < 2 * float(nearest.mean())
    assert radius[1] > distance[1]


def test_measure__does_not_reward_memorising(generator: torch.Generator) -> None:
    patches = torch.randn(400, 30, generator=generator)
    distance, _ = measure(patches, [300], generator)
    assert distance[0] > 0.8  # every patch that was clustered is its own centroid


def test_kinds__of_clusters_are_in_the_order_of_figure_5(generator: torch.Generator) -> None:
    curves = bands([clusters(generator)], [4, 8, 16], 0)
    assert set(curves) == set(KINDS)
    for i in range(3):
        for kind in ("original", "whitened"):
            for other in ("whitened_shuffled", "shuffled", "gaussian"):
                assert curves[kind].distance[i] < curves[other].distance[i]


def test_bands__over_draws(generator: torch.Generator) -> None:
    draws = [clusters(generator, points=500), clusters(generator, points=500)]
    one, both = bands(draws[:1], [4], 0)["original"], bands(draws, [4], 0)["original"]
    assert one.deviation == [0.0] and both.deviation[0] > 0


def test_greedy_cover__covers_with_few_balls(generator: torch.Generator) -> None:
    points = clusters(generator)
    assert greedy_cover(points, 0.5, 1.0, 100, generator) == 8
    assert greedy_cover(points, 0.5, 0.8, 100, generator) in (7, 8)
    assert greedy_cover(points, 100.0, 1.0, 100, generator) == 1
    assert greedy_cover(points, 1e-9, 1.0, 100, generator) is None
    assert greedy_cover(points[:5], 1e-9, 1.0, 5, generator) == 5


def test_slope__is_the_power() -> None:
    assert slope([1, 0.5, 0.25], [1, 8, 64]) == pytest.approx(3)
    assert slope([1], [5]) is None and slope([2, 2], [5, 6]) is None


def test_neighbor_distances__are_those_of_brute_force(generator: torch.Generator) -> None:
    points = torch.randn(300, 7, generator=generator)
    distances = torch.cdist(points.double(), points.double()).sort(1).values[:, 1:4]
    found = neighbor_distances(torch.cat([points, points[:50]]), 3)  # doubles count once
    torch.testing.assert_close(found.sort(0).values, distances.sort(0).values)
    with pytest.raises(ValueError, match="2 different patches"):
        neighbor_distances(points[[0, 1, 1, 0]], 2)


def manifold(name: str, generator: torch.Generator) -> tuple[Tensor, int]:
    """Points of a manifold in 75 dimensions, rotated at random, and its dimension, of which many take more points."""
    count = 8000 if name == "cube" else 4000
    u = torch.rand(count, 10, generator=generator, dtype=torch.float64)
    angle = 1.5 * math.pi * (1 + 2 * u[:, 0])
    points, dimension = {
        "line": (u[:, :1], 1),
        "sphere": (torch.nn.functional.normalize(torch.randn(count, 3, generator=generator).double()), 2),
        "swiss roll": (torch.stack([angle * angle.cos(), 21 * u[:, 1], angle * angle.sin()], 1) / 20, 2),
        "cube": (u, 10),
    }[name]
    rotation = torch.linalg.qr(torch.randn(75, 75, generator=generator, dtype=torch.float64))[0]
    return (points @ rotation[: points.shape[1]]), dimension


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("name", ["line", "sphere", "swiss roll", "cube"])
def test_dimension__of_known_manifolds_within_15_percent(name: str, noise: float, generator: torch.Generator) -> None:
    points, dimension = manifold(name, generator)
    if noise:  # as a share of the distance between neighbors
        around = torch.nn.functional.normalize(torch.randn(points.shape, generator=generator, dtype=torch.float64))
        points = points + noise * neighbor_distances(points, 1).median() * around
    distances = neighbor_distances(points, NEIGHBORS)
    assert two_nn(distances) == pytest.approx(dimension, rel=0.15)
    assert levina_bickel(distances) == pytest.approx(dimension, rel=0.15)


def test_spectrum_and_effective_rank(generator: torch.Generator) -> None:
    patches = torch.randn(5000, 6, generator=generator) * torch.tensor([3.0, 3, 3, 0, 0, 0])
    variances = spectrum(patches)
    torch.testing.assert_close(variances, torch.tensor([9.0, 9, 9, 0, 0, 0]).double(), atol=0.6, rtol=0)
    assert effective_rank(variances) == pytest.approx(3, rel=0.01)
    assert effective_rank(spectrum(whitened(torch.randn(5000, 6, generator=generator) * 3))) == pytest.approx(6, 0.01)


def test_recommended_atoms__is_where_the_lead_is_reached() -> None:
    counts = [2, 4, 8, 16]
    gaussian = Band(counts, [1.0, 1.0, 1.0, 1.0], [0.0] * 4, [1.0] * 4)
    curves = {"gaussian": gaussian, "whitened": Band(counts, [0.9, 0.5, 0.2, 0.19], [0.0] * 4, [1.0] * 4)}
    atoms, reason = recommended_atoms(curves, 100_000)
    assert atoms == 8 and "81.0%" in reason
    assert recommended_atoms(curves, 1100)[0] == 4  # 256 patches an atom
    for chance in (gaussian, Band(counts, [1.01] * 4, [0.0] * 4, [1.0] * 4)):
        assert "hardly" in recommended_atoms(curves | {"whitened": chance}, 100_000)[1]


def test_photographs__are_cut_at_any_size(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for i, (h, w) in enumerate([(20, 30), (41, 17), (64, 64)]):
        Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(tmp_path / "deep" / f"{i}.jpg")
    source = of_photographs(str(tmp_path), None, 5, 1000, 0)
    assert source.patches.shape == (1000, 75) and len({tuple(patch) for patch in source.patches.tolist()}) == 1000
    assert -1 <= source.patches.min() < -0.5 < 0.5 < source.patches.max() <= 1
    assert torch.equal(source.patches, of_photographs(str(tmp_path), None, 5, 1000, 0).patches)
    shrunk = of_photographs(str(tmp_path), 8, 5, 1000, 0)
    assert len(shrunk.patches) < 200  # a photograph of 8 by 12 pixels has 32 positions
    assert shrunk.patches.std() < source.patches.std()  # noise averages out


def test_photographs__of_16_bits_and_turned(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 65536, (40, 20)).astype(np.uint16)
    for name in ("a", "b"):
        Image.fromarray(grey).save(tmp_path / f"{name}.png")
    source = of_photographs(str(tmp_path), None, 3, 200, 0)
    assert source.shape == (3, 40, 20) and abs(float(source.patches.mean())) < 0.2  # not cut off at 255
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("a", "b"):
        Image.fromarray((grey // 257).astype(np.uint8)).save(tmp_path / f"{name}.png", exif=turned)
    assert of_photographs(str(tmp_path), None, 3, 200, 0).shape == (3, 20, 40)


def test_patches__of_the_bundled_photographs(command: Command, tmp_path: Path) -> None:
    quick = ["--patches=3000", "--centroids=16", "--seeds=2", "--json=out.json", "--wandb.mode=disabled"]
    done = command("patches", *quick)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"original", "whitened", "whitened_shuffled", "shuffled", "gaussian"} == set(result["curves"])
    for curve in result["curves"].values():
        assert curve["centroids"][0] == 2 and curve["centroids"][-1] == 16
        assert len(curve["distance"]) == len(curve["centroids"]) == len(curve["deviation"])
    assert "recommended: N = " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in ("clusters", "covering"):
        assert (tmp_path / f"runs/patches-photographs/{name}-photographs.png").stat().st_size > 5000


@pytest.mark.slow
def test_patches__of_every_layer_of_a_run(command: Command, tmp_path: Path) -> None:
    assert command("train", "--depth=2", "--run_dir=run", "--wandb.mode=disabled", *SMALL).returncode == 0
    quick = ["--patches=2000", "--centroids=8", "--json=out.json", "--wandb.mode=disabled"]
    done = command("patches", "--layer=run", *quick)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["layers"]) == ["layer 1", "layer 2"]
    assert result["layers"]["layer 1"]["patch_dimension"] == 9 and result["layers"]["layer 2"]["patch_dimension"] == 72
    assert (tmp_path / "runs/patches-run/layers.png").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(["--data.name=digits"], patch_size=9), "--patch_size: 9 does not fit the 8×8 images"),
        (Asked(["--data.name=digits"], patch_size=1), "--patch_size: 1 gives patches of dimension 1"),
        (Asked([], patches=200, centroids=200), "--centroids: 200 is more than the 150 patches"),
        (Asked([], patches=3), "--patches: 3 is too few"),
        (Asked([], photos="nowhere"), "--photos: nowhere is not a folder"),
        (Asked([], photos="empty"), "--photos: empty holds no images"),
        (Asked([], photos="lone"), "--photos: lone holds one image"),
        (Asked([], photos="broken"), "--photos: broken/a.png is not a readable image"),
        (Asked([], photos="flat"), "of flat 512 patches were drawn, 1 of them different"),
        (Asked([], photos="flat", patch_size=30), "--patch_size: 30 does not fit flat/"),
        (Asked([], photos="flat", layer="run:1"), "--photos: given as well as --layer"),
        (Asked(["--data.name=digits"], photos="flat"), "--data.name: given as well as --photos"),
        (Asked(["--data.name=digits"], photo_size=9), "--photo_size: 9, but no photographs"),
        (Asked(["--run_dir=training"]), "run_dir: training holds a training"),
        (Asked([], json="flat"), "--json: flat is a folder"),
        (Asked([], layer="nowhere:1"), "RUN: nowhere is not a run directory"),
        (Asked([], json="no/where.json"), "--json: no/where.json cannot be written"),
        (Asked([f"--seed={2**64}"]), f"seed: {2**64} is too large here; give one below {2**62}"),
        (Asked(["--patchsize=3"]), "patchsize: there is no such setting"),
    ],
)
def test_patches__errors_name_what_was_wrong(
    asked: Asked, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "lone", "broken", "flat"):
        (tmp_path / name).mkdir()
    for name in ("lone/a.png", "broken/b.png", "flat/a.png", "flat/b.png"):
        Image.new("RGB", (20, 20), (10, 20, 30)).save(tmp_path / name)
    (tmp_path / "broken/a.png").write_bytes(b"not an image")
    (tmp_path / "training").mkdir()
    (tmp_path / "training/config.yaml").touch()
    with pytest.raises(SettingError, match=re.escape(message)):
        measure_patches(asked)
    assert not (tmp_path / "runs").exists()


def test_patches__an_error_is_one_line(command: Command) -> None:
    done = command("patches", "--patches=3")
    assert (done.returncode, done.stderr) == (2, "error: --patches: 3 is too few; give 100 or more\n")
