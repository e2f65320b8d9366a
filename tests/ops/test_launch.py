"""Compiled loops over several threads."""

import numpy as np
import pytest
import torch

from layerwise.ops.launch import parallel


@parallel
def count(first, last, out):  # type: ignore[no-untyped-def]
    for task in range(first, last):
        out[task] += 1


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parallel__does_each_task_once(threads: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for tasks in (0, 1, 3, 1000):
            out = np.zeros(tasks + 1)
            count(tasks, out)
            assert out.tolist() == [1] * tasks + [0]
    finally:
        torch.set_num_threads(before)
