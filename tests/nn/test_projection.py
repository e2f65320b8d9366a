"""Norm and projection in one pass, against torch's own modules one after the other."""

import copy

import pytest
import torch
from torch import Tensor, nn

from layerwise.nn.projection import Sparse, can_be_one, projected


@pytest.fixture
def embedded() -> Tensor:
    torch.manual_seed(0)
    a = torch.randn(6, 40, 4, 3) + torch.arange(40)[:, None, None] / 10
    return (a * (torch.rand(a.shape) < 0.2)).contiguous(memory_format=torch.channels_last)


def modules(kind: str) -> tuple[nn.Module, nn.Conv2d]:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(40, eps=0.01) if kind == "batch" else nn.Identity()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter)
    return norm, nn.Conv2d(40, 7, 1)


def sparse(a: Tensor) -> Sparse:
    """Each window's numbers and their atoms, in 30 places."""
    rows = a.permute(0, 2, 3, 1)
    order = (rows != 0).float().argsort(dim=3, descending=True, stable=True)[..., :30]
    values = rows.gather(3, order)
    return Sparse(values, torch.where(values != 0, order, 0).int())


@pytest.mark.parametrize("kind", ["batch", "none"])
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_projected__is_norm_and_projection__in_training_and_after(kind: str, form: str, embedded: Tensor) -> None:
    norm, projection = modules(kind)
    own, own_projection = copy.deepcopy(norm), copy.deepcopy(projection)
    a, b = embedded.clone().requires_grad_(), embedded.clone().requires_grad_()
    expected = projection(norm(a))
    found = projected(own, own_projection, b if form == "dense" else sparse(b))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    factor = torch.randn(expected.shape)
    wanted = torch.autograd.grad((expected * factor).sum(), [a, *norm.parameters(), *projection.parameters()])
    given = torch.autograd.grad((found * factor).sum(), [b, *own.parameters(), *own_projection.parameters()])
    where = embedded != 0 if form == "sparse" else torch.ones_like(embedded).bool()  # nothing else is trained by it
    torch.testing.assert_close(given[0][where], wanted[0][where], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(given[1:], wanted[1:], rtol=1e-4, atol=1e-4)

    torch.testing.assert_close(own.state_dict(), norm.state_dict(), rtol=1e-5, atol=1e-6)
    if kind == "batch":
        assert int(own.state_dict()["num_batches_tracked"]) == 1
    norm.eval(), own.eval()
    expected = projection(norm(embedded))
    found = projected(own, own_projection, embedded if form == "dense" else sparse(embedded))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_can_be_one__of_what_it_knows_alone(embedded: Tensor) -> None:
    norm, projection = modules("batch")
    assert can_be_one(norm, projection, embedded)
    assert not can_be_one(nn.GroupNorm(4, 40), projection, embedded)
    assert not can_be_one(type("Mine", (nn.BatchNorm2d,), {})(40), projection, embedded)  # may do anything
    assert not can_be_one(norm, nn.Identity(), embedded)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_be_one(norm, projection, embedded)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_projected__of_no_images(form: str, embedded: Tensor) -> None:
    norm, projection = modules("batch")
    none = embedded[:0]
    given = none if form == "dense" else Sparse(torch.empty(0, 4, 3, 5), torch.empty(0, 4, 3, 5, dtype=torch.int32))
    assert projected(norm.eval(), projection, given).shape == (0, 7, 4, 3)
