"""One run of a table, a figure or a sweep: trained where it is not trained yet, and tested at every depth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from layerwise.api import device_of, train
from layerwise.config import Config, SettingError
from layerwise.config.identity import without_data
from layerwise.console import in_words
from layerwise.data.splits import DataSet, load_data
from layerwise.errors import DamagedRun
from layerwise.experiments.benchmark.steps import evaluation, median_seconds, seconds_per_step
from layerwise.experiments.paper.cnn import WEIGHTS, EndToEnd, layers_of, train_end_to_end
from layerwise.experiments.plan import planned
from layerwise.parsing import read_config
from layerwise.run.files import read_record, sha256, write_record
from layerwise.run.run import Run
from layerwise.training.evaluation import evaluate

TESTED = "depths.json"  # a run's test accuracies and seconds at every depth, and what was tested; written last


@dataclass(frozen=True)
class Job:
    """A stack to be trained, or a CNN of its shape, end to end."""

    config: Config
    """of the run; `run_dir` is given"""
    end_to_end: bool = False
    paced: "tuple[Job, int] | None" = None
    """a run, and its depth: this one's epochs are what takes as long by a rehearsal; None: the configuration's"""

    @property
    def folder(self) -> Path:
        """The run's directory."""
        assert self.config.run_dir is not None
        return Path(self.config.run_dir)

    def tested(self) -> list[float] | None:
        """Test accuracies in [0, 1] at depth 1, 2, …; of a CNN the only one. None: it is not finished, or another run.

        Raises DamagedRun where a file of the run is not as it was written.
        """
        if not (self.folder / TESTED).exists():
            return None
        try:
            stored = Run(self.folder).config
        except DamagedRun:  # which training writes anew, once it has checked the layers
            return None
        values = self._read()
        same = self._is(stored) and values["of"] == self._trained(len(values["accuracies"]))
        return list(values["accuracies"]) if same else None

    def seconds(self, depth: int) -> float:
        """Seconds of training up to a depth, of a finished run."""
        return sum(map(float, self._read()["seconds"][:depth]))

    def train(self) -> None:
        """Train, or go on with what is left, and test at every depth.

        Raises RunInUse where another process is at it, SettingError where the folder holds a run with other settings.
        """
        config = self._at_its_pace()
        if self.end_to_end:
            stored = read_config(self.folder / "config.yaml") if (self.folder / "config.yaml").exists() else config
            if not self._is(stored):
                raise SettingError(f"run_dir: {self.folder} was begun with other settings; move it away to train anew")
            tested, seconds = train_end_to_end(config, Run(self.folder))
            accurate, taken = [tested], [seconds]
        else:
            data, device = load_data(config.data, config.seed), device_of(config.trainer)
            run = train(config, data=data)
            accurate = evaluate(run.stack().to(device), data.test, device).accuracies
            taken = [record.seconds for record in run.records]
        about = {"accuracies": accurate, "seconds": taken, "of": self._trained(len(accurate))}
        write_record(self.folder / TESTED, about)
        (self.folder / "last.ckpt").unlink(missing_ok=True)  # of a CNN, which until then can go on from it

    def _at_its_pace(self) -> Config:
        """The configuration with the epochs that there is time for; a run that was begun keeps those it has."""
        if self.paced is None:
            return self.config
        if (self.folder / "config.yaml").exists():
            return self._begun_as(read_config(self.folder / "config.yaml"))
        data = load_data(self.config.data, self.config.seed)
        # rehearsed one after the other, so that what else the machine has to do slows down both
        ahead, seconds = sum(_seconds(_alike(self), data)), sum(_seconds(self, data))
        print(f"as many epochs as fit into {in_words(ahead)}", flush=True)
        return _with_epochs(
            self.config, lambda n: max(1, round(ahead / seconds * self.config.layer_at(n).optimizer.epochs))
        )

    def _is(self, stored: Config) -> bool:
        """Whether a configuration is this run's."""
        return _deciding(stored) == _deciding(self._begun_as(stored))

    def _begun_as(self, stored: Config) -> Config:
        """The configuration; of a run that follows another's pace with the epochs that it was begun with."""
        if self.paced is None:
            return self.config
        return _with_epochs(self.config, lambda number: stored.layer_at(number).optimizer.epochs)

    def _trained(self, depth: int) -> str:
        """What stands for the weights that were tested."""
        weights, run = self.folder / WEIGHTS, Run(self.folder)
        if weights.exists():
            return sha256(weights)
        for number in range(1, depth + 1):
            run.record(number)  # which finds what is damaged
        return run.layer(depth).identity()

    def _read(self) -> dict[str, Any]:
        try:
            return read_record(self.folder / TESTED)
        except (OSError, ValueError) as error:
            remedy = "delete it, and the same command tests anew"
            raise DamagedRun(f"{self.folder / TESTED} is damaged ({error}); {remedy}") from error


def estimate(jobs: Sequence[Job]) -> float:
    """Seconds of what is left to train of jobs on the same data, by a rehearsal of each kind of them.

    What half-trained layers have behind them is not excluded, nor are tests included. Raises SettingError where a run
    does not fit the data or the machine.
    """
    data, known, total = load_data(jobs[0].config.data, jobs[0].config.seed), dict[str, list[float]](), 0.0
    for job in jobs:
        like = _alike(job)
        key = repr((_deciding(replace(like.config, seed=0)), like.end_to_end))
        if key not in known:
            known[key] = _seconds(like, data)
        done = [(job.folder / f"layer-{number}" / "layer.json").exists() for number in range(1, len(known[key]) + 1)]
        total += sum(seconds for seconds, there in zip(known[key], done, strict=True) if not there)
    return total


def _alike(job: Job) -> Job:
    """A run that takes as long as this one is to take."""
    return job if job.paced is None else Job(replace(job.paced[0].config, depth=job.paced[1]))


def _seconds(job: Job, data: DataSet) -> list[float]:
    """Of each layer, or of a CNN, which has one."""
    config, device = job.config, device_of(job.config.trainer)
    if not job.end_to_end:
        return [layer.seconds for layer in planned(config, data, device)[0]]
    optimizer, classes = config.layer_at(1).optimizer, len(data.classes)
    model = EndToEnd(layers_of(config), data.shape, classes)
    a_step = seconds_per_step(model, optimizer, data.shape, classes, device)
    a_batch = median_seconds(
        evaluation(model, torch.zeros(optimizer.batch_size, *data.shape, device=device), classes), device
    )
    an_epoch = a_step * len(data.train) + a_batch * len(data.val)
    return [optimizer.epochs * an_epoch / optimizer.batch_size]


def _deciding(config: Config) -> dict[str, Any]:
    """What of a configuration decides the accuracy: not where it is computed, nor where a known data set lies."""
    return without_data(config, config.deepest)


def _with_epochs(config: Config, epochs: Callable[[int], int]) -> Config:
    """The configuration with other epochs for each layer, by its number."""
    layers = {number: config.layer_at(number) for number in range(1, config.deepest + 1)}
    changed = {n: replace(own, optimizer=replace(own.optimizer, epochs=epochs(n))) for n, own in layers.items()}
    return replace(config, layers=config.layers | changed)
