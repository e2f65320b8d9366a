"""Gates, against formulas written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from layerwise.config import Config, Gate, Layer, SettingError
from layerwise.config.choices import GATES
from layerwise.nn import gates
from layerwise.nn.dictionary import PatchDictionary
from layerwise.nn.gates import DistanceGate, overlap
from tests.nn.layers import SMALL, make_layer

DISTANCE = torch.tensor([[0.5, 2.0, 0.0, 4.5], [8.0, 8.0, 8.0, 0.5]])  # half squared: distances 1 2 0 3 and 4 4 4 1
PLACES = [[1.0, 2.0, 0.0, 3.0], [4.0, -4.0, 4.0, -1.0]]
"""atoms on a line that have these distances from 0"""
DISTANCE_GATES = [name for name in GATES if issubclass(GATES[name], DistanceGate)]
NEAR = [name for name in GATES if name != "relu"]
"""gates that follow from the distances"""


def weights(kind: str, k: int) -> Tensor:
    gate = GATES[kind](1, k)
    assert isinstance(gate, DistanceGate)
    return gate.weights(DISTANCE, k)


def line(places: list[float]) -> PatchDictionary:
    """Atoms on a line that nothing is whitened on."""
    return PatchDictionary(torch.zeros(1), torch.eye(1), torch.tensor(places)[:, None])


def at_zero(kind: str, k: int, maps: Tensor | None = None) -> list[list[float]]:
    """The gates of a patch of one pixel, 0, of which each dictionary has its own atoms, by the whole way."""
    pixel = torch.zeros(1, 1, 1, 1)
    return [GATES[kind](1, k).pooled(pixel, line(places), maps, 1).flatten().tolist() for places in PLACES]


def test_places__are_as_far_as_they_should_be() -> None:
    far = torch.cat([line(places).distance(torch.zeros(1, 1)) for places in PLACES])
    assert torch.equal(far, DISTANCE)


def test_nearest__is_the_k_nearest__lowest_index_first() -> None:
    assert at_zero("nearest", 2) == [[1, 0, 1, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize(
    "k, expected", [(1, [[0, 0, 1, 0], [0, 0, 0, 1]]), (2, [[1, 0, 0, 0]] * 2), (3, [[0, 1, 0, 0]] * 2)]
)
def test_kth__is_one_atom_alone(k: int, expected: list[list[float]]) -> None:
    assert weights("kth", k).tolist() == at_zero("kth", k) == expected


def test_triangle__is_how_much_nearer_than_average() -> None:
    expected = torch.tensor([[0.5, 0, 1.5, 0], [0, 0, 0, 2.25]])  # mean distances 1.5 and 3.25
    torch.testing.assert_close(weights("triangle", 1), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(at_zero("triangle", 1)), expected, atol=1e-5, rtol=1e-5)


def test_soft__is_a_half_at_the_kth_and_falls_with_distance() -> None:
    gate = weights("soft", 2)
    assert gate[0, 0] == 0.5
    assert gate[0, 2] > gate[0, 0] > gate[0, 1] > gate[0, 3]
    unit = DISTANCE[0].std(correction=0) / 4
    torch.testing.assert_close(gate[0, 1], torch.sigmoid((0.5 - 2.0) / unit))
    torch.testing.assert_close(torch.tensor(at_zero("soft", 2)), gate)


@pytest.mark.parametrize("name", DISTANCE_GATES)
def test_gates__of_equally_near_atoms_are_finite(name: str) -> None:
    distance = torch.full((3, 5), 2.0, requires_grad=True)
    gate = GATES[name](1, 2).weights(distance, 2)
    assert gate.shape == (3, 5) and gate.isfinite().all()
    if gate.requires_grad:
        (gradient,) = torch.autograd.grad(gate.sum(), distance)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NEAR)
def test_gates__multiply_maps_and_are_averaged(name: str, generator: torch.Generator) -> None:
    x = torch.randn(3, 2, 6, 5, generator=generator)
    layer = make_layer(replace(SMALL, gate=Gate(name)), (2, 6, 5)).layer
    dictionary, maps = layer.embedding.dictionary, torch.randn(19, 8, generator=generator)
    gate = GATES[name](3, 3)
    alone = gate.pooled(x, dictionary, None, 1)
    kernels = maps[:-1].T.reshape(8, 3, 3, 2).permute(0, 3, 1, 2)
    mapped = alone * F.conv2d(x, kernels, maps[-1])
    torch.testing.assert_close(gate.pooled(x, dictionary, maps, 1), mapped, atol=1e-5, rtol=1e-5)
    for window in (2, 3):
        expected = F.avg_pool2d(mapped, window, ceil_mode=True)
        torch.testing.assert_close(gate.pooled(x, dictionary, maps, window), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gate.usage(x, dictionary, maps), alone.mean((0, 2, 3)))
    assert torch.equal(gate.patterns(dictionary, maps), dictionary.patterns())


def test_usage__of_the_nearest_k_sums_to_k(generator: torch.Generator) -> None:
    pixels = torch.tensor([0.0, 0.0, 0.0, 5.0]).reshape(1, 1, 2, 2)
    used = GATES["nearest"](1, 1).usage(pixels, line([1.0, 4.0, -2.0]), None)
    assert used.tolist() == [0.75, 0.25, 0]
    x = torch.randn(4, 2, 9, 8, generator=generator)
    dictionary = make_layer(SMALL, (2, 9, 8)).layer.embedding.dictionary
    for k in (1, 5, 8):
        assert float(GATES["nearest"](3, k).usage(x, dictionary, None).sum()) == pytest.approx(k, rel=1e-5)
        assert float(GATES["kth"](3, k).usage(x, dictionary, None).sum()) == pytest.approx(1, rel=1e-5)


def test_usage__of_an_image_that_is_no_square__counts_every_position_once(generator: torch.Generator) -> None:
    dictionary = PatchDictionary(torch.zeros(4), torch.eye(4), torch.randn(6, 4, generator=generator))
    x = torch.randn(2, 1, 4, 10, generator=generator)
    corners = [x[:, 0, dy : 3 + dy, dx : 9 + dx] for dy in (0, 1) for dx in (0, 1)]
    patches = torch.stack(corners, -1).flatten(0, 2)
    nearest = torch.cdist(patches, dictionary.atoms).argmin(1)
    expected = nearest.bincount(minlength=6) / len(patches)
    torch.testing.assert_close(GATES["nearest"](2, 1).usage(x, dictionary, None), expected)


def test_relu__is_a_convolution_a_relu_and_an_average__whatever_the_atoms(generator: torch.Generator) -> None:
    x, maps = torch.randn(3, 2, 6, 5, generator=generator), torch.randn(19, 8, generator=generator)
    gate = GATES["relu"](3, 2)
    kernels = maps[:-1].T.reshape(8, 3, 3, 2).permute(0, 3, 1, 2)
    positive = F.conv2d(x, kernels, maps[-1]).relu()
    for seed in (0, 1):
        atoms = torch.randn(8, 18, generator=torch.Generator().manual_seed(seed))
        dictionary = PatchDictionary(torch.zeros(18), torch.eye(18), atoms)
        for window in (1, 2):
            expected = F.avg_pool2d(positive, window, ceil_mode=True)
            torch.testing.assert_close(gate.pooled(x, dictionary, maps, window), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(gate.usage(x, dictionary, maps), (positive > 0).float().mean((0, 2, 3)))
        assert torch.equal(gate.patterns(dictionary, maps), maps[:-1].T)


@pytest.mark.parametrize("name", DISTANCE_GATES)
def test_gates__are_the_same_however_many_images_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer(replace(SMALL, gate=Gate(name)), (2, 9, 8)).layer.eval()
    x = torch.randn(5, 2, 9, 8, generator=torch.Generator().manual_seed(0))
    whole = layer(x)
    seen = []
    whole_pooled = DistanceGate._pooled

    def counted(self: DistanceGate, x: Tensor, *others: object) -> Tensor:
        seen.append(len(x))
        return whole_pooled(self, x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(DistanceGate, "_pooled", counted)
    monkeypatch.setattr(gates, "TOGETHER", 2 * 9 * 8 * 8)  # two images
    torch.testing.assert_close(layer(x), whole)
    assert seen == [2, 2, 1]
    monkeypatch.setattr(gates, "TOGETHER", 1)  # one, where not even that has room
    torch.testing.assert_close(layer(x), whole)
    assert seen == [2, 2, 1, *[1] * 5]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            Layer(gate=Gate("nearset")),
            "layer.gate.kind: nearset is not one of nearest, relu, kth, soft, triangle; did",
        ),
        (
            Layer(embedding="hard", gate=Gate("relu")),
            r"layer.gate.kind: relu is the sign of a map, but here",
        ),
        (Layer(gate=Gate("soft", metric="cosine")), r"layer.gate.metric: cosine .* not soft"),
        (Layer(atoms=4, neighbors=5), r"layer.neighbors: 5 of 4 atoms"),
    ],
)
def test_config__names_a_gate_that_cannot_be(layer: Layer, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Config(layer=layer)


def test_overlap__is_the_share_of_near_atoms_that_adjacent_patches_have_in_common() -> None:
    # two images of one row and three patches: {0, 1}, {1, 2}, {1, 2}, and {0}, {1}, none
    first = torch.tensor([[1.0, 0, 0], [1, 1, 1], [0, 1, 1]])
    second = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert overlap(torch.stack([first, second])[:, :, None]) == pytest.approx((1 / 3 + 1 + 0 + 0) / 4)
    assert overlap(torch.tensor([0.5, 0.25, 1.0, 1.0]).reshape(1, 2, 1, 2)) == pytest.approx(1.25 / 1.5)
    assert overlap(torch.ones(2, 3, 4, 1)) is None  # one above the other


@pytest.mark.parametrize("name", list(GATES))
def test_values__are_the_gates_of_each_position(name: str, generator: torch.Generator) -> None:
    x, dictionary = torch.randn(2, 1, 5, 6, generator=generator), line([1.0, 4.0, -2.0])
    maps = torch.randn(2, 3, generator=generator)
    found = GATES[name](1, 2).values(x, dictionary, maps)
    assert found.shape == (2, 3, 5, 6)
    torch.testing.assert_close(found.mean((0, 2, 3)), GATES[name](1, 2).usage(x, dictionary, maps))
    if name == "relu":
        assert torch.equal(found, (x * maps[0, :, None, None] + maps[1, :, None, None] > 0).float())
    elif name == "nearest":
        assert torch.equal(found.sum(1), torch.full((2, 5, 6), 2.0))
