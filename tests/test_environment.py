"""What is set for other programs, streams that are closed, and signals: by real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerwise.environment import hidden
from tests.conftest import QUIET, ROOT, environment
from tests.run.test_run import hashes
from tests.test_whole_program import wait_for

MISLEADING = {
    "SLURM_NTASKS": "4",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "train",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_NODELIST": "n[1-2]",
    "LSB_JOBID": "2",
    "LSB_HOSTS": "a b",
    "LSB_DJOB_RANKFILE": "/nonexistent",
    "JSM_NAMESPACE_SIZE": "4",
    "RANK": "three",
    "LOCAL_RANK": "3",
    "WORLD_SIZE": "4",
    "PL_TRAINER_ACCUMULATE_GRAD_BATCHES": "4",
    "PL_TRAINER_FAST_DEV_RUN": "1",
    "PL_TRAINER_NUM_NODES": "2",
    "PL_GLOBAL_SEED": "x",
    "TQDM_MININTERVAL": "x",
    "MPLBACKEND": "nonsense",
    "MATPLOTLIBRC": "other.rc",
    "NUMBA_THREADING_LAYER": "nonsense",
    "NUMBA_NUM_THREADS": "0",
    "WANDB_SERVICE": "3-1-tcp-localhost-9",
    "PYTHONIOENCODING": "ascii",
    "PYTHONWARNINGS": "error",
    "COLUMNS": "x",
}


def test_what_other_programs_are_told__changes_no_bit(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: true\nlines.linewidth: 9\naxes.facecolor: red\n")
    (tmp_path / "other.rc").write_text("font.size: 30\n")
    command = [sys.executable, str(ROOT / "train.py"), "--depth=2", *QUIET]
    done = subprocess.run(command, cwd=tmp_path, env=environment() | MISLEADING, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert b"32?8?8" in done.stdout.replace("×".encode(), b"?") or b"8?6?6" in done.stdout
    for pattern in ("layer-*/*.safetensors", "*.png"):
        assert hashes(tmp_path / "r", pattern) == hashes(trained, pattern)


def test_hidden__is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("RANKING", "3")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "there")
    with hidden():
        assert "RANK" not in os.environ
        assert os.environ["NUMBA_CACHE_DIR"] == "there"
    assert os.environ["RANK"] == "3"


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&- <&-", ">/dev/full", "| head -1"])
def test_streams__may_be_closed_or_full_or_have_no_reader(streams: str, tmp_path: Path, trained: Path) -> None:
    line = f"set -o pipefail; {sys.executable} {ROOT / 'train.py'} --depth=1 {' '.join(QUIET)} {streams}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment(), capture_output=True, timeout=300)
    assert done.returncode == 0 and not done.stderr
    assert hashes(tmp_path / "r", "layer-1/*.safetensors") == hashes(trained, "layer-1/*.safetensors")


def test_a_second_signal__ends_what_hangs__and_so_does_time(tmp_path: Path) -> None:
    program = """if True:
        import atexit, sys, time
        import layerwise.cli, layerwise.cli.evaluate
        def hang(arguments=None):
            open(sys.argv[1], "w").close()
            try:
                time.sleep(60)
            finally:
                time.sleep(60)
        layerwise.cli.LIMIT = float(sys.argv[2])
        layerwise.cli.evaluate.main = hang
        sys.exit(layerwise.cli.main(["evaluate"]))
    """
    for limit, code in (("60", -signal.SIGTERM), ("0.5", 128 + signal.SIGTERM)):
        path = tmp_path / limit
        command = [sys.executable, "-c", program, str(path), limit]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
        wait_for(path, process)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        if limit == "60":
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == code
        assert errors == "\nstopped by SIGTERM; the same command begins anew\n"


def test_a_restart_that_is_stopped__says_to_go_on_without_it(tmp_path: Path) -> None:
    program = """if True:
        import os, signal, sys
        import layerwise.cli, layerwise.cli.train
        layerwise.cli.train.main = lambda arguments: os.kill(os.getpid(), signal.SIGUSR1)
        sys.exit(layerwise.cli.main(["train", "--restart_from=2"]))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGUSR1
    then = "goes on from here, without --restart_from once it has said that layers were deleted"
    assert done.stderr == f"\nstopped by SIGUSR1; the same command {then}\n"


@pytest.mark.parametrize("caught", ["raise OSError('another')", "raise RuntimeError('another')", "pass", "sys.exit(1)"])
def test_a_signal__ends_with_its_code__whatever_a_library_makes_of_the_exit(caught: str) -> None:
    program = f"""if True:
        import os, signal, sys
        import layerwise.cli, layerwise.cli.train
        def main(arguments):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except BaseException:
                {caught}
        layerwise.cli.train.main = main
        sys.exit(layerwise.cli.main(["train"]))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143
    assert done.stderr.startswith("\nstopped by SIGTERM; the same command goes on from here\n")
    assert "Traceback" not in done.stderr
