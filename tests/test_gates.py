"""Gates, against formulas written out."""

import json
from pathlib import Path

import pytest
import torch

from layerwise.cli.command import train
from layerwise.cli.parsing import parse
from layerwise.config.layer import LayerConfig, LayerOverrides
from layerwise.config.run import Config, SettingError
from layerwise.nn import gates
from layerwise.nn.gates import GATES, SMOOTH, check_gates, kth, nearest, soft, triangle
from tests.conftest import ROOT, SMALL

DISTANCE = torch.tensor([[0.5, 2.0, 0.0, 4.5], [8.0, 8.0, 8.0, 0.5]])  # half squared: distances 1 2 0 3 and 4 4 4 1


def test_nearest__is_the_k_nearest__lowest_index_first() -> None:
    assert nearest(DISTANCE, 2).tolist() == [[1, 0, 1, 0], [1, 0, 0, 1]]


def test_kth__is_one_atom_alone() -> None:
    assert kth(DISTANCE, 1).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert kth(DISTANCE, 2).tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert kth(DISTANCE, 3).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


def test_triangle__is_how_much_nearer_than_average() -> None:
    expected = torch.tensor([[0.5, 0, 1.5, 0], [0, 0, 0, 2.25]])  # mean distances 1.5 and 3.25
    torch.testing.assert_close(triangle(DISTANCE, 1), expected, atol=1e-5, rtol=1e-5)


def test_soft__is_a_half_at_the_kth_and_falls_with_distance() -> None:
    gate = soft(DISTANCE, 2)
    assert gate[0, 0] == 0.5
    assert gate[0, 2] > gate[0, 0] > gate[0, 1] > gate[0, 3]
    unit = DISTANCE[0].std(correction=0) / 4
    torch.testing.assert_close(gate[0, 1], torch.sigmoid((0.5 - 2.0) / unit))


@pytest.mark.parametrize("name", GATES)
def test_gates__of_equally_near_atoms_are_finite(name: str) -> None:
    distance = torch.full((3, 5), 2.0, requires_grad=True)
    gate = GATES[name](distance, 2)
    assert gate.shape == (3, 5) and gate.isfinite().all()
    if gate.requires_grad:
        (gradient,) = torch.autograd.grad(gate.sum(), distance)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", GATES)
def test_smooth_gates__are_those_that_gradient_flows_through(name: str) -> None:
    distance = DISTANCE.clone().requires_grad_()
    assert GATES[name](distance, 2).requires_grad == (name in SMOOTH)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Config(layer=LayerConfig(gate="nearset")),
            r"layer 1: gate nearset is not one of nearest, kth, soft, triangle",
        ),
        (Config(layer=LayerConfig(embedding="relu", gate="soft")), r"layer 1: the embedding relu has no gate; .* soft"),
        (Config(depth=2, layers={2: LayerOverrides(learn_atoms=True)}), r"layer 2: no gradient .* gate nearest"),
    ],
)
def test_check_gates__names_the_layer(config: Config, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_gates(config)
    check_gates(Config(layer=LayerConfig(gate="soft", learn_atoms=True)))


def test_a_new_gate__as_the_readme_shows_it__trains_once_it_has_a_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = (ROOT / "README.md").read_text().split("```python\ndef nearest_half")[1].split("\n\n\n")[0]
    namespace = dict(vars(gates))
    exec("def nearest_half" + shown, namespace)
    used = []

    def counted(distance: torch.Tensor, k: int) -> torch.Tensor:
        gate: torch.Tensor = namespace["nearest_half"](distance, k)
        used.append(gate.sum(-1).unique().tolist())
        return gate

    monkeypatch.setitem(GATES, "nearest_half", counted)
    settings = ["--layer.gate=nearest_half", "--layer.neighbors=6", "--optimizer.batch_size=64"]
    config, _ = parse([*SMALL, *settings, "--wandb.mode=disabled"])
    train(config, str(tmp_path / "run"))
    assert used and all(near == [3] for near in used)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["test_accuracy"] > 0.5
