"""Dictionaries of 65,536 atoms: what a step takes, and which atoms are near."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment


@pytest.mark.slow
@pytest.mark.parametrize("k", [16, 26_214])
def test_a_step_of_65536_atoms__takes_little_memory__and_its_gates_are_those_of_a_sort(k: int) -> None:
    command = [sys.executable, "-m", "tests.ops.wide", "65536", str(k)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    taken, wrong = done.stdout.splitlines()
    assert float(taken.split()[0]) < 6 and wrong == "0 wrong"
