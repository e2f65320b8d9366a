"""One writer to a directory, also where the file system has no locks."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from layerwise.errors import RunInUse
from layerwise.run.lock import Lock
from tests.conftest import ROOT

WITHOUT_LOCKS = """
import ctypes, errno, os, platform, struct, sys, time
from pathlib import Path
# from here on the kernel answers flock(2) with ENOLCK, as a network file system without locks does
number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | errno.ENOLCK), (6, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
filter = struct.pack("HP", len(code), ctypes.addressof(program))
if libc.prctl(22, 2, filter, 0, 0) != 0:
    sys.exit(77)
from layerwise.run.lock import Lock
lock = Lock(Path(sys.argv[1]))
if sys.argv[2] == "asks":
    print(lock.holder())
    sys.exit()
lock.acquire()
print("taken", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_a_second_writer__is_told_who_the_first_is__and_comes_after_it(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    first.acquire()
    with pytest.raises(RunInUse, match=rf"in use by process {os.getpid()} on {os.uname().nodename}; wait for it"):
        second.acquire()
    first.release()
    second.acquire()
    assert (tmp_path / ".owner").read_text() == f"process {os.getpid()} on {os.uname().nodename}"
    second.release()
    assert not (tmp_path / ".owner").exists()


def test_holder__is_named_to_any_number_of_others__and_a_file_that_a_kill_left_is_none(tmp_path: Path) -> None:
    own, other = Lock(tmp_path), Lock(tmp_path)
    assert other.holder() is None and not any(tmp_path.iterdir())
    own.acquire()
    who = f"process {os.getpid()} on {os.uname().nodename}"
    assert other.holder() == other.holder() == who
    own.release()
    assert other.holder() is None
    (tmp_path / ".owner").write_text(who)
    assert other.holder() is None
    other.acquire()  # which asking did not hinder
    assert own.holder() == who
    other.release()


def test_a_writer__waits_for_whoever_only_asks(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        asked = threading.Timer(0.05, fcntl.flock, (file, fcntl.LOCK_UN))
        asked.start()
        lock = Lock(tmp_path)
        lock.acquire()
        assert asked.finished.is_set()  # so it came after
        asked.join()
    assert Lock(tmp_path).holder() == f"process {os.getpid()} on {os.uname().nodename}"
    lock.release()
    assert Lock(tmp_path).holder() is None


def test_without_locks_of_the_file_system__a_file_stands_for_one__and_a_dead_owner_has_none(tmp_path: Path) -> None:
    def started(seconds: float | str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WITHOUT_LOCKS, str(tmp_path), str(seconds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = started(60)
    assert first.stdout is not None
    if first.stdout.readline() != "taken\n":
        first.wait()
        assert first.returncode == 77, first.stderr
        pytest.skip("system calls can't be filtered here")
    second = started(0)
    _, errors = second.communicate()
    assert f"in use by process {first.pid} on" in errors and ".lock-file where it is gone" in errors
    assert started("asks").communicate()[0] == f"process {first.pid} on {os.uname().nodename}\n"
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert started("asks").communicate()[0] == "None\n"
    time.sleep(0.1)
    third = started(0)
    assert third.communicate()[0] == "taken\n"
