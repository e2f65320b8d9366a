"""Whitening, against eigenvalues that are known."""

import pytest
import torch

from layerwise.config.choices import FORMULAS, WHITENINGS
from layerwise.nn.whitening import fit_whitening


@pytest.mark.parametrize("epsilon", [0.0, 0.03, 1.0])
def test_fit_whitening__gives_the_regularised_identity(epsilon: float, generator: torch.Generator) -> None:
    z = (torch.randn(5000, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 3).double()
    whitened = fit_whitening(z, epsilon)(z)
    variance = torch.linalg.eigvalsh(torch.cov(z.T, correction=0)).flip(0)
    expected = torch.diag(variance / (variance + epsilon * variance.mean()))
    torch.testing.assert_close(torch.cov(whitened.T, correction=0), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(whitened.mean(0), torch.zeros(6).double(), atol=1e-9, rtol=0)


def test_fit_whitening__refuses_constant_patches() -> None:
    with pytest.raises(ValueError, match="zero covariance"):
        fit_whitening(torch.full((10, 4), 0.3), 0.1)


CROSS = torch.tensor([[5.0, 1.0], [-1.0, 1.0], [2.0, 2.0], [2.0, 0.0]])
"""mean (2, 1), variances 9/2 and 1/2 along the axes"""
TURN = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])


@pytest.mark.parametrize(
    "formula, epsilon, scale",
    [
        ("variance", 0.0, (4.5**-0.5, 0.5**-0.5)),
        ("variance", 2.0, (9.5**-0.5, 5.5**-0.5)),  # the mean variance is 5/2
        ("deviation", 0.0, (4.5**-0.5, 0.5**-0.5)),
        ("deviation", 1.0, (1 / (1 + 4.5**0.5), 1 / (1 + 0.5**0.5))),
    ],
)
def test_fit_whitening__multiplies_each_direction_by_the_formula(
    formula: str, epsilon: float, scale: tuple[float, float]
) -> None:
    found = fit_whitening(CROSS, epsilon, formula=formula)
    assert found.mean.tolist() == [2, 1]
    torch.testing.assert_close(found.matrix, torch.diag(torch.tensor(scale)))
    found = fit_whitening(CROSS @ TURN, epsilon, formula=formula)
    # the principal axes are the rows of the turn, each with its largest number positive
    torch.testing.assert_close(found.matrix, torch.tensor([[0.6, 0.8], [0.8, -0.6]]) * torch.tensor(scale))


def test_fit_whitening__zca_turns_back__and_none_leaves_as_it_is() -> None:
    turned, scale = CROSS @ TURN, torch.diag(torch.tensor([4.5, 0.5]).rsqrt())
    torch.testing.assert_close(fit_whitening(turned, 0.0, "zca").matrix, TURN.T @ scale @ TURN)
    assert torch.equal(fit_whitening(turned, 0.0, "none").matrix, torch.eye(2))


@pytest.mark.parametrize("kind", WHITENINGS)
def test_fit_whitening__without_center_subtracts_nothing(kind: str) -> None:
    centered, plain = (fit_whitening(CROSS, 0.1, kind, center=center) for center in (True, False))
    assert plain.mean.tolist() == [0, 0] and centered.mean.tolist() == [2, 1]
    assert torch.equal(plain.matrix, centered.matrix)
    torch.testing.assert_close(plain(CROSS), CROSS @ plain.matrix)
    torch.testing.assert_close(centered(CROSS), (CROSS - torch.tensor([2.0, 1.0])) @ plain.matrix)


@pytest.mark.parametrize("formula", FORMULAS)
def test_fit_whitening__of_patches_without_some_directions_is_finite(formula: str, generator: torch.Generator) -> None:
    for _ in range(5):  # eigenvalues that should be zero come out on either side of it
        patches = torch.randn(100, 2, generator=generator) @ torch.randn(2, 9, generator=generator)
        found = fit_whitening(patches, 0.0, formula=formula)
        assert found.matrix.isfinite().all()
        torch.testing.assert_close(torch.cov(found(patches)[:, :2].T, correction=0), torch.eye(2), atol=1e-2, rtol=0)


def test_fit_whitening__a_few_patches_at_a_time__is_that_of_all(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = torch.randn(100, 4, generator=generator) @ torch.randn(4, 4, generator=generator) + 3
    monkeypatch.setattr("layerwise.ops.bounded.NUMBERS", 30)  # 7 patches; the last chunk has 2
    found = fit_whitening(patches, 0.0, "zca")
    torch.testing.assert_close(found.mean, patches.mean(0))
    # the symmetric root of the inverse covariance
    torch.testing.assert_close(found.matrix @ found.matrix, torch.cov(patches.T, correction=0).inverse())


def test_scaled__is_nearly_pca_of_a_large_epsilon_but_for_its_rotation(generator: torch.Generator) -> None:
    patches = torch.randn(2000, 6, generator=generator) * torch.tensor([3.0, 2, 2, 1, 1, 0.5]) + 4
    turned, scaled = (fit_whitening(patches, 100, kind) for kind in ("pca", "scaled"))
    factor = (101 * patches.var(0).mean()) ** -0.5  # of a direction whose variance is the mean one
    torch.testing.assert_close(scaled.matrix, torch.eye(6) * factor, atol=2e-3 * float(factor), rtol=2e-3)
    ours, theirs = (torch.cdist(one(patches[:50]), one(patches[50:100])) for one in (scaled, turned))
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0.02)
