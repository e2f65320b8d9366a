"""Try a GPU: is everything right, is it fast, what comes of Table 1; one table, one file that goes on."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from layerwise.config import SettingError
from layerwise.console import print_table
from layerwise.errors import TrainingFailed
from layerwise.experiments.benchmark.layers import first_layer
from layerwise.experiments.benchmark.steps import SIDE
from layerwise.experiments.gpu import kernels, speed
from layerwise.experiments.gpu.findings import Check, Finding
from layerwise.experiments.gpu.kernels import CASES, Case, Shape
from layerwise.experiments.gpu.table import EPOCHS, Table1
from layerwise.parsing import RECIPES, read_config
from layerwise.run.files import output_file, read_record, write_record
from layerwise.version import VERSION

OLDEST = (8, 0)
"""compute capability that the kernels are made for"""


@dataclass(frozen=True)
class Sizes:
    """How large what is tried is."""

    cases: list[Case]
    """of the kernels"""
    layers: list[Shape]
    """whose gates and steps are tried, and timed"""
    batch: int
    """images a step"""
    side: int
    """of the matrices that are multiplied"""
    turns: int
    """in which steps are timed"""


def full(device: torch.device) -> Sizes:
    """For a GPU; the batch is that of the benchmark, or what a small one has room for."""
    recipe = read_config(RECIPES / "image_folder.yaml")
    images, second = (3, SIDE, SIDE), (64, 14, 14)
    layers: list[Shape] = [
        (first_layer(1024, 256), images),
        (recipe.layer_at(1), images),
        *((replace(recipe.layer_at(2), atoms=atoms), second) for atoms in (512, 4096)),
    ]
    large = torch.cuda.get_device_properties(device).total_memory > 40e9
    return Sizes(CASES, layers, 512 if large else 128, 8192, 3)


def lacking() -> str | None:
    """What a GPU that could be checked lacks here, in words; None where there is one."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA; install one that is built with it"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU here, or no driver for it; run it where nvidia-smi shows one"
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if capability < OLDEST:
        return f"{name} has compute capability {capability[0]}.{capability[1]}; the kernels need 8.0 or above"
    try:
        import_module("triton")
    except ImportError as error:
        return f"Triton cannot be imported ({error}); install it"
    return None


def about(device: torch.device) -> dict[str, Any]:
    """What was tried: the GPU, the versions, the kernels."""
    code = b"".join(path.read_bytes() for path in sorted((Path(kernels.__file__).parents[2] / "ops").rglob("*.py")))
    told = {"device": str(device.type), "layerwise": VERSION, "torch": torch.__version__}
    told["ops"] = hashlib.sha256(code).hexdigest()[:12]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {"device": properties.name, "capability": f"{properties.major}.{properties.minor}"}
        told |= {"gib": f"{properties.total_memory / 2**30:.0f}", "cuda": torch.version.cuda or ""}
    return told


@dataclass
class Record:
    """What came of each check, in a file that is written after each."""

    path: Path
    about: dict[str, Any]
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        try:
            held = read_record(self.path)
        except (OSError, ValueError) as error:
            remedy = "move it away, or give another"
            raise SettingError(f"--json: {self.path} is not what check-gpu wrote ({error}); {remedy}") from error
        if held["about"] != self.about:
            differing = [name for name in self.about if held["about"].get(name) != self.about[name]]
            told = ", ".join(f"{name} {held['about'].get(name)}, not {self.about[name]}" for name in differing)
            raise SettingError(f"--json: {self.path} is of {told}; move it away, or give another")
        self.done = held["checks"]

    def add(self, check: Check, findings: list[Finding], seconds: float) -> None:
        """Keep what came of a check."""
        self.done[check.name] = {"seconds": round(seconds, 3), "findings": [asdict(found) for found in findings]}
        write_record(self.path, {"about": self.about, "checks": self.done})

    def findings(self, check: Check) -> list[Finding]:
        """What came of it."""
        return [Finding(**values) for values in self.done[check.name]["findings"]]


def check_gpu(
    minutes: float,
    path: str,
    arguments: list[str],
    device: torch.device | None = None,
    sizes: Sizes | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Record:
    """Try what is not tried yet, as long as there is time; print all that was found, and write it to `path`.

    `arguments` are settings of Table 1's rows, as of `layerwise train`, such as --data.root. Without a device, that of
    the GPU. Raises OSError where there is no GPU, SettingError where the file is of another one, and TrainingFailed
    where something is not as it should be, or is not done yet.
    """
    if device is None:
        if missing := lacking():
            raise OSError(f"check-gpu: {missing}")
        device = torch.device("cuda")
    end = now() + 60 * minutes
    sizes = sizes or full(device)
    table, record = Table1(arguments, lambda: end - now()), Record(output_file("--json", path), about(device))
    checks = [
        *kernels.checks(sizes.cases, sizes.layers, sizes.batch, device),
        *speed.checks(sizes.layers, sizes.batch, sizes.side, sizes.turns, device),
        *table.checks(),
    ]
    print(", ".join(f"{name} {value}" for name, value in record.about.items()), flush=True)
    left = dict[str, str]()
    for number, check in enumerate(checks, 1):
        if check.name not in record.done:
            if now() > end:
                left[check.name] = "no time was left"
                continue
            print(f"{number} of {len(checks)}: {check.name}", flush=True)
            start = now()
            try:
                record.add(check, check.run(), now() - start)
            except Exception as error:  # of a compiler, a kernel, memory, data that is not there
                left[check.name] = " ".join(str(error).split())[:200]
                print(f"  {left[check.name]}", flush=True)
        if check.name == EPOCHS and EPOCHS in record.done:
            table.epochs = int(record.findings(check)[0].value or 0)
    found = [finding for check in checks if check.name in record.done for finding in record.findings(check)]
    words = {True: "yes", False: "NO", None: ""}
    lines = [(one.what, one.found, one.wanted, words[one.holds]) for one in found]
    lines += [(name, reason, "", "not done") for name, reason in left.items()]
    print()
    print_table([("tried", "found", "wanted", "holds"), *lines], left=3)
    print(f"\nwritten to {record.path}")
    failures = [one.what for one in found if one.holds is False]
    if failures:
        raise TrainingFailed(f"check-gpu: {len(failures)} of {len(found)} do not hold, such as {failures[0]}")
    if left:
        raise TrainingFailed(f"check-gpu: {len(left)} of {len(checks)} are not done; the same command goes on")
    return record
