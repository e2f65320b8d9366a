"""What the GPU's kernels take of a multiprocessor; no GPU is needed."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton")

from tests.ops.compiled import SHARED  # noqa: E402

KERNELS = {"layer 1": "dense", "layer 1 of 1024": "dense", "layer 2": "sparse", "layer 2 of 4096": "sparse"}
"""recipes, and what they are computed by"""


def compile_for(*capabilities: int) -> None:
    """Compile all kernels; fails where one spills, or shares more memory than there is."""
    # another process, since in this one kernels are interpreted
    compiles = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.ops.compiled", *map(str, capabilities)]
    told = subprocess.run(command, cwd=ROOT, env=compiles, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    print(told.stdout)
    expected = [
        (recipe, kernel, capability)
        for recipe, module in KERNELS.items()
        for kernel in ("gates.gate_kernel", f"{module}.embed_kernel", f"{module}.gradient_kernel")
        for capability in capabilities
    ]
    assert [(row["recipe"], row["kernel"], row["capability"]) for row in rows] == expected
    assert not [row for row in rows if row["spilled"] or row["shared"] > 1024 * SHARED[row["capability"]]]


def test_kernels__compile_without_spills__for_8_0_and_9_0__at_the_recipes_shapes() -> None:
    compile_for(80, 90)


@pytest.mark.slow
def test_kernels__compile_without_spills__for_every_capability_since_8_0() -> None:
    compile_for(*SHARED)
