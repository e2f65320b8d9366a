"""What goes wrong around a command: other settings, a full disk, a second writer, planted files, numbers, memory."""

import ctypes
import os
import resource
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from layerwise.experiments.selftest.bench import DEEPER, FIRST, Bench, Outcome, content, differing
from layerwise.experiments.selftest.command import Ended, Started, call
from layerwise.run.files import write_sealed

REFUSED = {
    "--layer.atoms=9": "layer.atoms: 9, but layer 1 was trained with 8",
    "--layer.gate.kind=kth": "layer.gate.kind: kth, but layer 1 was trained with nearest",
    "--layers.2.neighbors=3": "layers.2.neighbors: 3, but layer 2 was trained with null",
    "--optimizer.learning_rate=0.01": "optimizer.learning_rate: 0.01, but layer 1 was trained with 0.003",
    "--features.views=1": "features.views: 1, but the run was trained with 2",
    "--data.crop=0": "data.crop: 0, but the run was trained with null",
    "--seed=1": "seed: 1, but the run was trained with 0",
}
ALLOWED = [["--wandb.name=other"], ["--trainer.accelerator=auto"], ["--restart_from=2"]]
NO_NAMESPACES = 77


def changed(bench: Bench) -> Outcome:
    """Give other settings and other images for a run; and what may change."""
    outcome = Outcome("changed settings and images are refused by name; what does not touch the weights may change")
    before = content(bench.shallow)
    for option, named in bench.some(REFUSED.items()):
        place = _copy(bench)
        failure = call(place, bench.command(FIRST, option)).refused(2, named)
        outcome.add(option, failure or ("" if content(place / "r") == before else "the run was changed"))
    for options in bench.some(ALLOWED):
        place = _copy(bench)
        end = call(place, bench.command(FIRST, *options))
        told = "" if end.code == 0 else end.printed[-200:]
        same = {name: known for name, known in content(place / "r").items() if name.startswith("layer-")}
        outcome.add(" ".join(options), told or ("" if same.items() <= before.items() else "a layer was changed"))
    other = shutil.copytree(bench.images, bench.folder / "other")
    (other / "dark" / "00.png").unlink()
    shutil.copy(other / "gray" / "00.png", other / "gray" / "01.png")
    shutil.copy(other / "bright" / "00.png", other / "bright" / "new.png")
    end = call(_copy(bench), bench.command(FIRST, f"--data.root={other}"))
    outcome.add("other images", end.refused(2, "data.root", "1 added, 1 removed, 1 changed"))
    return outcome


def full(bench: Bench) -> Outcome:
    """Run on file systems that are too small, and then on one that is not."""
    outcome = Outcome("on a full disk the command ends with one line; given room, it goes on to the same files")
    size = sum(path.stat().st_blocks for path in bench.shallow.rglob("*")) // 2
    for _ in range(bench.count(3)):
        place, kilobytes = bench.place(), bench.random.randint(8, size)
        end = call(place, bench.command(FIRST), within=partial(_small_disk, place, kilobytes))
        if end.code == NO_NAMESPACES:
            outcome.note = "not tried: a small file system can't be mounted here without further rights"
            return outcome
        failure = "" if end.code == 0 else end.refused(1, "could not be written", "No space left")
        again = call(place, bench.command(FIRST))
        failure = failure or ("" if again.code == 0 else again.printed[-300:]) or differing(place / "r", bench.shallow)
        outcome.add(f"{kilobytes} of {size} KiB", failure)
    return outcome


def written_twice(bench: Bench) -> Outcome:
    """Give a command while another one runs in the same directory; kill that."""
    outcome = Outcome("one process writes to a run, named by host and process; a dead one's lock is taken over")
    place = bench.place()
    first = Started(place, bench.command(FIRST, "--optimizer.epochs=1000"))
    while not (place / "r" / ".owner").exists() and first.process.is_alive():
        time.sleep(0.01)
    second = call(place, bench.command(FIRST))
    outcome.add("a second one", second.refused(2, f"in use by process {first.process.pid} on {os.uname().nodename}"))
    first.process.kill()
    first.ended()
    shutil.rmtree(place / "r" / "layer-1", ignore_errors=True)
    third = call(place, bench.command(FIRST))
    failure = f"exit code {third.code}" if third.code else differing(place / "r", bench.shallow)
    outcome.add("one after a killed one", failure)
    return outcome


class _Planted:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def planted(bench: Bench) -> Outcome:
    """Plant files that would run code, write elsewhere, or fill the memory."""
    outcome = Outcome("files from others run no code, and nothing is written outside the run")
    mark, outside = bench.folder / "mark", bench.folder / "outside"
    outside.mkdir()
    tags = f'!!python/object/apply:os.mkdir ["{mark}"]'
    aliases = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )

    def plant(run: Path, what: str) -> None:
        if what == "a pickle as a checkpoint":
            shutil.rmtree(run)
            shutil.copytree(bench.half, run)
            torch.save({"state_dict": _Planted(mark)}, run / "layer-1" / "last.ckpt")
        elif what == "a pickle as weights":
            torch.save(_Planted(mark), run / "layer-2" / "layer.safetensors")
        elif what == "a tag in config.yaml":
            write_sealed(run / "config.yaml", f"depth: 2\nseed: {tags}\n")
        elif what == "a bomb of aliases in config.yaml":
            write_sealed(run / "config.yaml", aliases)
        elif what == "a bomb of brackets in layer.json":
            (run / "layer-2" / "layer.json").write_text("[" * 200_000)
        elif what == "a link in place of a layer":
            (run / "layer-3").symlink_to(outside)
        elif what == "a link in place of a file that is written":
            (run / ".config.yaml.partial").symlink_to(outside / "config.yaml")
        elif what == "a path as the run's W&B id":
            (run / "wandb").mkdir()
            (run / "wandb" / "run-id").write_text(f"../../../{outside}/id")

    for what in bench.some(PLANTED):
        place = _copy(bench)
        plant(place / "r", what)
        train = call(place, bench.command(DEEPER, *(["--wandb.mode=offline"] if "W&B" in what else [])))
        ends = [train, call(place, ["evaluate", "r", f"--data.root={bench.images}"])]
        failure = "".join(_unclean(end) for end in ends)
        if mark.exists() or any(outside.iterdir()):
            failure = "it was effective"
        outcome.add(what, failure)
    root = shutil.copytree(bench.images, bench.folder / "bomb")
    header = b"IHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x02\x00\x00\x00"
    picture = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    (root / "dark" / "bomb.png").write_bytes(picture)
    end = call(bench.place(), bench.command(FIRST, f"--data.root={root}", "--data.image_size=8"))
    outcome.add("a picture of 60000×60000", end.refused(2, "bomb.png"))
    return outcome


PLANTED = [
    "a pickle as a checkpoint", "a pickle as weights", "a tag in config.yaml", "a bomb of aliases in config.yaml",
    "a bomb of brackets in layer.json", "a link in place of a layer", "a link in place of a file that is written",
    "a path as the run's W&B id",
]  # fmt: skip


def unbounded(bench: Bench) -> Outcome:
    """Let a training diverge, and one take more memory than there is."""
    outcome = Outcome("what is not finite, or does not fit into memory, is one line that says where and what to do")
    end = call(bench.place(), bench.command("--depth=1", "--optimizer.learning_rate=1e30"))
    outcome.add("a learning rate of 1e30", end.refused(1, "layer 1, epoch 1", "not finite at step", "learning_rate"))
    large = ["--data.image_size=96", "--layer.atoms=2048", "--optimizer.batch_size=64", "--layer.neighbors=512"]
    large += ["--layer.sampling.patches=4096"]
    end = call(bench.place(), bench.command("--depth=1", *large), within=partial(_little_memory, 1 << 30))
    outcome.add("a batch of 3 GiB in 1", end.refused(1, "layer 1", "too little memory", "optimizer.batch_size"))
    return outcome


FAULTS = [changed, full, written_twice, planted, unbounded]


def _copy(bench: Bench) -> Path:
    place = bench.place()
    shutil.copytree(bench.shallow, place / "r")
    return place


def _unclean(end: Ended) -> str:
    """Why this is no end that was meant, in words."""
    clean = end.code in (0, 1, 2) and "Traceback" not in end.printed
    return "" if clean else f"exit code {end.code}, {end.printed[-300:]!r}"


@contextmanager
def _small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """A file system of so many KiB in place of the folder r, whose content is kept."""
    libc, small = ctypes.CDLL(None, use_errno=True), place / "r"
    user, group = os.getuid(), os.getgid()
    small.mkdir()
    try:
        if libc.unshare(0x10020000):  # namespaces of users and of mounts
            raise OSError(ctypes.get_errno(), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        options = f"size={kilobytes}k".encode()
        if libc.mount(b"tmpfs", os.fsencode(small), b"tmpfs", 0, options):
            raise OSError(ctypes.get_errno(), "mount")
    except (OSError, AttributeError):
        os._exit(NO_NAMESPACES)
    yield
    shutil.copytree(small, place / "kept")
    libc.umount2(os.fsencode(small), 2)  # once nothing holds it open
    small.rmdir()
    (place / "kept").rename(small)


@contextmanager
def _little_memory(more: int) -> Iterator[None]:
    """Room for so many bytes more than what is taken."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + more, resource.RLIM_INFINITY))
    yield
