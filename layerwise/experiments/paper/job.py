"""One run of a table, a figure or a sweep: trained where it is not trained yet, and tested at every depth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwise.api import device_of, train
from layerwise.config import Config, SettingError
from layerwise.config.identity import without_data
from layerwise.data.splits import load_data
from layerwise.errors import DamagedRun
from layerwise.experiments.benchmark.steps import seconds_per_step, untrained_layer
from layerwise.experiments.paper.cnn import WEIGHTS, EndToEnd, train_end_to_end
from layerwise.parsing import read_config
from layerwise.run.files import read_record, sha256, write_record
from layerwise.run.run import Run
from layerwise.training.depth import check_fit, next_shape
from layerwise.training.evaluation import evaluate

FORWARD = 0.6  # share of a training step that its forward pass takes, about
TESTED = "depths.json"  # a run's test accuracies and seconds at every depth, and what was tested; written last


@dataclass(frozen=True)
class Job:
    """A stack to be trained, or a CNN end to end."""

    config: Config
    """of the run; `run_dir` is given"""
    convolutions: int = 1
    """of a CNN that is trained end to end; 1: it is a stack of layers"""

    @property
    def folder(self) -> Path:
        """The run's directory."""
        assert self.config.run_dir is not None
        return Path(self.config.run_dir)

    def tested(self) -> list[float] | None:
        """Test accuracies in [0, 1] at depth 1, 2, …; None where the run is not finished, or is another.

        Raises DamagedRun where a file of the run is not as it was written.
        """
        if not (self.folder / TESTED).exists():
            return None
        try:
            stored = Run(self.folder).config
        except DamagedRun:  # which training writes anew, once it has checked the layers
            return None
        values = self._read()
        same = _deciding(stored) == _deciding(self.config) and values["of"] == self._trained(len(values["accuracies"]))
        return list(values["accuracies"]) if same else None

    def seconds(self, depth: int) -> float:
        """Seconds of training up to a depth, of a finished run."""
        return sum(map(float, self._read()["seconds"][:depth]))

    def train(self) -> None:
        """Train, or go on with what is left, and test at every depth.

        Raises RunInUse where another process is at it, SettingError where the folder holds a run with other settings.
        """
        if self.convolutions > 1:
            stored = read_config(self.folder / "config.yaml") if (self.folder / "config.yaml").exists() else self.config
            if _deciding(stored) != _deciding(self.config):
                raise SettingError(f"run_dir: {self.folder} was begun with other settings; move it away to train anew")
            tested, seconds = train_end_to_end(self.config, self.convolutions, Run(self.folder))
            accurate, taken = [tested], [seconds]
        else:
            data, device = load_data(self.config.data, self.config.seed), device_of(self.config.trainer)
            run = train(self.config, data=data)
            accurate = evaluate(run.stack().to(device), data.test, device).accuracies
            taken = [record.seconds for record in run.records]
        about = {"accuracies": accurate, "seconds": taken, "of": self._trained(len(accurate))}
        write_record(self.folder / TESTED, about)

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


def _deciding(config: Config) -> dict[str, Any]:
    """What of a configuration decides the accuracy: not where it is computed, nor where a known data set lies."""
    return without_data(config, config.deepest)


def estimate(jobs: list[Job]) -> float:
    """Seconds of what is left to train of jobs on the same data, from a few steps of each layer, on random numbers.

    Excluded are dictionaries, tests, and what half-trained layers have behind them. Raises SettingError where a run
    does not fit the data or the machine.
    """
    data = load_data(jobs[0].config.data, jobs[0].config.seed)
    images, classes, known, total = len(data.train), len(data.classes), dict[str, float](), 0.0
    for job in jobs:
        config, shape, below, device = job.config, data.shape, 0.0, device_of(job.config.trainer)
        check_fit(config, shape, images)
        for number in range(1, config.deepest + 1):
            own = config.layer_at(number)
            key = repr((own, shape, job.convolutions))
            if key not in known:
                layer = untrained_layer(own, shape, classes)
                model = layer if job.convolutions == 1 else EndToEnd(own, job.convolutions, shape, classes)
                known[key] = seconds_per_step(model, own.optimizer, shape, classes, device)
            epochs, views = own.optimizer.epochs, config.features.views
            if not (job.folder / f"layer-{number}" / "layer.json").exists():
                with_validation = epochs * known[key] * (1 + FORWARD * len(data.val) / images)
                steps = images // own.optimizer.batch_size
                total += steps * (with_validation + (min(views, epochs) or epochs) * below)
            below = FORWARD * known[key] + (0.0 if views else below)
            shape = next_shape(config, number, shape, images)
    return total
