"""What the GPU's kernels take of a multiprocessor; no GPU is needed."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton")

SHARED = 99 * 1024  # bytes that a program may share on every GPU since 8.0


def test_kernels__compile_without_spills__for_8_0_and_9_0__at_the_recipes_shapes() -> None:
    # another process, since in this one kernels are interpreted
    compiles = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.ops.compiled"]
    told = subprocess.run(command, cwd=ROOT, env=compiles, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    print(told.stdout)
    kernels = {"layer 1": "dense", "layer 1 of 1024": "dense", "layer 2": "sparse", "layer 2 of 4096": "sparse"}
    expected = [
        (recipe, kernel, capability)
        for recipe, module in kernels.items()
        for kernel in ("gates.gate_kernel", f"{module}.embed_kernel", f"{module}.gradient_kernel")
        for capability in (80, 90)
    ]
    assert [(row["recipe"], row["kernel"], row["capability"]) for row in rows] == expected
    assert not [row for row in rows if row["spilled"] or row["shared"] > SHARED]
