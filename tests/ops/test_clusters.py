"""Sums of clusters, by every backend."""

import pytest
import torch

from layerwise.nn.kmeans import kmeans
from layerwise.ops import clusters, cuda, reference


def test_add_up__sums_each_clusters_points__whichever_backend(generator: torch.Generator) -> None:
    points = torch.randint(-8, 9, (1000, 5), generator=generator).float()  # whose sums are exact in any order
    index = torch.randint(0, 6, (1000,), generator=generator)
    expected = torch.stack([points[index == j].sum(0) for j in range(7)])
    for backend in (reference, clusters, cuda):
        sums, sizes = backend.add_up(points, index, 7)
        assert torch.equal(sums, expected)
        assert sizes.tolist() == [int((index == j).sum()) for j in range(7)] and sizes[6] == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_kmeans__on_a_gpu_gives_the_same_bits_at_every_call(generator: torch.Generator) -> None:
    points = torch.randn(20000, 9, generator=generator).cuda()
    first, *others = (kmeans(points, 50, 10, torch.Generator().manual_seed(0)) for _ in range(4))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_add_up__on_a_gpu_gives_the_same_bits_at_every_call(generator: torch.Generator) -> None:
    points = torch.randn(20000, 9, generator=generator).cuda()
    index = torch.randint(0, 4, (20000,), generator=generator).cuda()
    first = cuda.add_up(points, index, 4)[0]
    for _ in range(5):
        assert torch.equal(cuda.add_up(points, index, 4)[0], first)
