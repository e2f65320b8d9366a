"""Files of a run that are damaged, and what reads them then."""

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from layerwise.config.identity import fingerprint, settings_of
from layerwise.data.splits import load_data
from layerwise.errors import DamagedRun, SettingError
from layerwise.experiments.selftest.bench import FIRST, Bench, Outcome
from layerwise.parsing import parse
from layerwise.run.run import Run
from layerwise.training.fit import CommittedCheckpoints

DAMAGED = 430
"""for each unit of effort"""


def damaged(bench: Bench) -> Outcome:
    """Cut a file off, flip a bit, fill a part with zeros, append or exchange; then read all that a command reads."""
    outcome = Outcome("a file that is cut off or changed, if by a bit, is named, or makes no difference")
    config = parse(bench.command(FIRST)[1:])[0]
    data, counts, harmless = load_data(config.data, config.seed), dict[str, int](), set[str]()
    identity = fingerprint(settings_of(config, 1, data.digest))

    def read(folder: Path) -> Any:
        run, checkpoint = Run(folder), folder / "layer-1" / "last.ckpt"
        run.check(config, data)
        layers = [run.layer(record.layer).load(record).state_dict() for record in run.records]
        begun = {
            path.parent.name: run.layer(int(path.parent.name[6:])).dictionary()
            for path in folder.glob("layer-*/*.safe*")
        }
        dictionaries = {name: dictionary.state_dict() for name, dictionary in begun.items() if dictionary}
        saved = CommittedCheckpoints(identity).load_checkpoint(checkpoint) if checkpoint.exists() else None
        return run.config, run.records, layers, dictionaries, saved

    for source, share in ((bench.shallow, 0.7), (bench.half, 0.3)):
        run = bench.place() / "r"
        shutil.copytree(source, run)
        undisturbed = read(run)
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.stat().st_size)
        for i in range(round(bench.count(DAMAGED) * share)):
            path = files[i % len(files)]
            known = path.read_bytes()
            how, changed = _change(known, bench, [other for other in files if other.suffix == path.suffix])
            if changed == known:
                continue
            path.write_bytes(changed)
            name = str(path.relative_to(run))
            counts[name] = counts.get(name, 0) + 1
            failure = ""
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    if not _same(read(run), undisturbed):
                        failure = "what was read is other than what was written"
                    else:
                        harmless.add(name)
            except (DamagedRun, SettingError) as error:
                if not re.search(rf"{re.escape(str(path))}|{re.escape(str(path.parent))}\b", str(error)):
                    failure = f"not named in {str(error)!r}"
            except Exception as error:
                failure = repr(error)
            outcome.add(f"{name}, {how}", failure)
            path.write_bytes(known)
    told = ", ".join(sorted({Path(name).name for name in counts}))
    ever = ", ".join(sorted({Path(name).name for name in harmless}))
    outcome.note = f"{len(counts)} files: {told}; some changes made no difference in {ever}"
    return outcome


def _change(known: bytes, bench: Bench, files: list[Path]) -> tuple[str, bytes]:
    """A change of a file's content, in words, and what comes of it."""
    draw, where = bench.random, bench.random.randrange(len(known))
    kind = draw.choices(["bit", "cut", "zeros", "appended", "exchanged"], [10, 6, 2, 1, 1])[0]
    if kind == "cut":
        return f"cut off after {where} bytes", known[:where]
    if kind == "zeros":
        end = min(len(known), where + 1 + draw.randrange(64))
        return f"zeros from {where} to {end}", known[:where] + bytes(end - where) + known[end:]
    if kind == "appended":
        return "64 bytes appended", known + os.urandom(64)
    if kind == "exchanged":
        other = draw.choice(files)
        return f"as {other.parent.name}/{other.name}", other.read_bytes()
    bit = draw.randrange(8)
    return f"bit {bit} of byte {where} flipped", known[:where] + bytes([known[where] ^ 1 << bit]) + known[where + 1 :]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)
