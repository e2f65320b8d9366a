"""A loaded stack in the forked workers of a DataLoader, and in several threads, after it was used here."""

from pathlib import Path

import numba
import pytest
import torch

from layerwise.ops import cpu
from tests.conftest import Command

PROGRAM = """if True:
    import sys, threading, warnings
    import numba, torch
    from torch.utils.data import DataLoader
    import layerwise

    warnings.simplefilter("ignore")  # that there are more workers than cores
    stack = layerwise.load(sys.argv[1])
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    there = stack.transform(images)

    class Features:
        def __len__(self): return 2
        def __getitem__(self, i): return stack.transform(images)

    def forked():
        loader = DataLoader(Features(), 1, num_workers=2, timeout=60, multiprocessing_context="fork")
        return all(torch.equal(batch[0], there) for batch in loader)

    if sys.argv[2] == "omp":
        try:
            forked()
        except RuntimeError as error:
            assert "multiprocessing_context='spawn'" in str(error), error
            print("said")
    else:
        print(forked(), numba.threading_layer())
    results = []
    def work():
        results.extend(torch.equal(stack.transform(images), there) for _ in range(20))
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(results), all(results))
"""


def test_workers_and_threads__get_the_same_numbers(finished: Path, process: Command) -> None:
    done = process("-c", PROGRAM, str(finished), "default")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True workqueue", "60 True"]


def test_workers__with_a_threading_layer_that_cannot__are_told_what_to_do(
    finished: Path, process: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_THREADING_LAYER", "omp")
    done = process("-c", PROGRAM, str(finished), "omp")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["said", "60 True"]


def test_compiled_loops__give_the_same_bits_with_any_number_of_threads(generator: torch.Generator) -> None:
    x, more = (torch.randn(shape, generator=generator) for shape in ((64, 3, 9, 9), (999, 77)))
    scorer, maps = torch.randn(2, 28, 33, generator=generator)
    found, most = [], numba.get_num_threads()
    try:
        for threads in (1, min(3, most)):
            numba.set_num_threads(threads)
            out, near = cpu.forward(x, scorer, maps, 3, 5, 2)
            found.append([out, near, cpu.backward(x, out, near, 3, 2), *cpu.lowest(more)])
    finally:
        numba.set_num_threads(most)
    assert all(torch.equal(one, several) for one, several in zip(*found, strict=True))
