"""Too little memory."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from layerwise import memory
from layerwise.config import SettingError
from layerwise.errors import TrainingFailed
from layerwise.parsing import parse
from layerwise.training.depth import check_fit


@contextmanager
def at_most(total: int) -> Iterator[None]:
    """Let the process take no more than this number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (total, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def little_more() -> int:
    """256 MiB more than the process has taken."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 28)


@pytest.mark.parametrize(
    "told, limits, expected",
    [
        ("0::/user.slice/job_7/step_0\n", {"user.slice": "max\n", "user.slice/job_7": "5000\n"}, [5000]),
        ("0::/user.slice/job_7\n", {"": "9000", "user.slice/job_7": "5000", "user.slice/job_8": "3"}, [9000, 5000]),
        ("4:cpu,memory:/slurm/job_7\n0::/\n", {"memory/": "9000", "memory/slurm/job_7": "7000"}, [9000, 7000]),
        ("4:memory:/docker/ab12\n", {"memory/": "9000"}, [9000]),  # a container, to which its own is the outermost
        ("0::/../../job\n", {"": "9000", "job": "3"}, [9000]),
        (None, {"": "9000"}, [9000]),
    ],
)
def test_lent__is_said_by_every_group_that_the_process_is_in(
    told: str | None, limits: dict[str, str], expected: list[int], tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    if told is not None:
        (tmp_path / "proc/self/cgroup").write_text(told)
    for group, limit in limits.items():
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("memory.limit_in_bytes" if group.startswith("memory") else "memory.max")).write_text(limit)
    assert list(memory.lent(tmp_path)) == expected


def test_needed__names_what_asked_for_too_much() -> None:
    told = "layer 3: training: too little memory; give less than 64 for --optimizer.batch_size"
    total = little_more()
    with at_most(total):
        assert memory.total() == total
        with (
            pytest.raises(TrainingFailed, match=f"^{told}$"),
            memory.needed("layer 3: training", "give less than 64 for --optimizer.batch_size"),
        ):
            torch.empty(1 << 30)  # 4 GiB: this process may keep some of what it has freed


def test_needed__is_about_memory_alone() -> None:
    with pytest.raises(RuntimeError, match="inconsistent") as caught, memory.needed("a", "b"):
        torch.empty(3) @ torch.empty(2)
    assert not isinstance(caught.value, TrainingFailed)
    with pytest.raises(TrainingFailed, match="a: too little memory; b"), memory.needed("a", "b"):
        raise MemoryError


def test_total__is_at_most_what_the_process_may_take() -> None:
    with at_most(1 << 45):
        assert 0 < memory.total() < 1 << 45  # of the machine


def test_a_sample_that_cannot_fit__is_refused_before_anything_is_trained() -> None:
    config = parse(["--config=plain_digits", "--layer.sampling.patches=2000000000", "--layer.patch_size=21"])[0]
    told = r"layer\.sampling\.patches: 2000000000 patches of 3×21² numbers take \d+\.\d GB, and there are \d+\.\d; give"
    with pytest.raises(SettingError, match=told):
        check_fit(config, (3, 64, 64), 1 << 30)


def test_peak__is_as_much_as_is_taken_now_at_least() -> None:
    taken = torch.ones(1 << 25)  # 128 MiB
    now = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert taken.nbytes < now <= memory.peak() * 1.01 < 50 * now  # the kernel counts pages in batches
