"""A loaded stack in the forked workers of a DataLoader, and in several threads, after it was used here."""

from pathlib import Path

import torch

from layerwise.ops import cpu
from tests.conftest import Command

PROGRAM = """if True:
    import sys, threading, warnings
    import torch
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

    print(forked())
    results = []
    def work():
        results.extend(torch.equal(stack.transform(images), there) for _ in range(20))
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(results), all(results))
"""


def test_workers_and_threads__get_the_same_numbers(finished: Path, process: Command) -> None:
    done = process("-c", PROGRAM, str(finished))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", "60 True"]


def test_compiled_loops__give_the_same_bits_with_any_number_of_threads(generator: torch.Generator) -> None:
    x, more = (torch.randn(shape, generator=generator) for shape in ((64, 3, 9, 9), (999, 77)))
    scorer, maps = torch.randn(2, 28, 33, generator=generator)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out, near = cpu.forward(x, scorer, maps, 3, 5, 2)
            found.append([out, near, cpu.backward(x, out, near, 3, 2), *cpu.lowest(more)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, several) for one, several in zip(*found, strict=True))
