"""What the GPU's kernels take of a multiprocessor; no GPU is needed."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton")

from tests.ops.compiled import SHARED  # noqa: E402

KERNELS = {"layer 1": "dense", "layer 1 of 1024": "dense", "layer 2": "sparse", "layer 2 of 4096": "sparse"}
"""recipes, and what they are computed by"""


def compiled_for(*capabilities: int) -> list[dict[str, Any]]:
    """What each kernel takes, compiled for each capability."""
    # another process, since in this one kernels are interpreted
    compiles = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.ops.compiled", *map(str, capabilities)]
    done = subprocess.run(command, cwd=ROOT, env=compiles, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines()]


def told(rows: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(row["recipe"], row["kernel"], row["capability"]) for row in rows]


def all_kernels(*capabilities: int) -> list[tuple[str, str, int]]:
    """What `told` is to be."""
    return [
        (recipe, kernel, capability)
        for recipe, module in KERNELS.items()
        for kernel in ("gates.gate_kernel", f"{module}.embed_kernel", f"{module}.gradient_kernel")
        for capability in capabilities
    ]


def too_large(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that spill, or share more memory than there is."""
    return [row for row in rows if row["spilled"] or row["shared"] > 1024 * SHARED[row["capability"]]]


def test_kernels__compile_without_spills__for_9_0__at_the_recipes_shapes() -> None:
    rows = compiled_for(90)
    assert told(rows) == all_kernels(90) and too_large(rows) == []


@pytest.mark.slow
def test_kernels__compile_without_spills__for_every_capability_since_8_0() -> None:
    rows = compiled_for(*SHARED)
    assert told(rows) == all_kernels(*SHARED) and too_large(rows) == []
