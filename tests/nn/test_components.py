"""Principal components of gates, against those of NumPy."""

import numpy as np
import pytest
import torch

from layerwise.nn.components import gate_components


def gates(points: torch.Tensor, atoms: torch.Tensor, k: int) -> torch.Tensor:
    near = torch.cdist(points, atoms).argsort(dim=1, stable=True)[:, :k]
    return torch.zeros(len(points), len(atoms)).scatter_(1, near, 1)


def test_components__are_those_of_which_atoms_are_near() -> None:
    points = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    atoms = points[:12]
    maps = gate_components(points, atoms, 3, 5, 4.0, False)
    told = gates(points, atoms, 3) @ maps
    variances, directions = np.linalg.eigh(np.cov(gates(points, atoms, 3).T.numpy(), bias=True))
    assert told.var(0, correction=0).mean() == pytest.approx(4, rel=1e-3)
    expected = 4 * variances[::-1][:5] / variances[::-1][:5].mean()
    np.testing.assert_allclose(told.var(0, correction=0), expected, rtol=1e-3)
    along = np.abs((directions[:, ::-1][:, :5] * np.linalg.norm(maps, axis=0)).T @ maps.numpy())
    np.testing.assert_allclose(along, np.diag(np.square(np.linalg.norm(maps, axis=0))), atol=1e-3)


def test_components__of_atoms_that_are_alike__are_of_the_first_of_them() -> None:
    points = torch.randint(-2, 3, (2000, 3), generator=torch.Generator().manual_seed(2)).float()
    atoms = points[:4].repeat(3, 1)
    maps = gate_components(points, atoms, 4, 3, 1.0, False)
    told = gates(points, atoms, 4) @ maps
    covariance = np.cov(told.T.numpy(), bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert np.trace(covariance) == pytest.approx(3, rel=1e-3)


def test_components__in_pairs__are_of_a_mirrored_patch_the_other_of_each() -> None:
    points = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))
    signs = torch.tensor([1.0, 1, -1, -1])
    atoms = torch.cat([points[:10], points[:10] * signs])
    maps = gate_components(points, atoms, 4, 6, 1.0, True)
    told, of_mirrored = (gates(some, atoms, 4) @ maps for some in (points, points * signs))
    torch.testing.assert_close(told[:, :3], of_mirrored[:, 3:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(told[:, :3], told[:, 3:], atol=0.1)
    both = torch.cat([told, of_mirrored])
    assert both.var(0, correction=0).mean() == pytest.approx(1, rel=1e-3)
    # the sum and the difference of a pair are a component of what mirroring leaves alone, and of what it turns around
    first, second = gates(torch.cat([points, points * signs]), atoms, 4).chunk(2, 1)
    kept = [
        np.linalg.eigvalsh(np.cov(part.T.numpy(), bias=True))[::-1][:3] for part in (first + second, first - second)
    ]
    found = [(both[:, :3] + sign * both[:, 3:]).var(0, correction=0).numpy() for sign in (1, -1)]
    np.testing.assert_allclose(np.stack(found) / np.sum(found), np.stack(kept) / np.sum(kept), rtol=1e-3)
