"""Table 1 of the paper at its full size, for as many of its 200 epochs as there is time for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from layerwise.console import in_words
from layerwise.errors import TrainingFailed
from layerwise.experiments.gpu.findings import Check, Finding
from layerwise.experiments.paper.job import Job, estimate
from layerwise.experiments.paper.reproduce import check_sweep, configured, outcome
from layerwise.experiments.paper.tables import TABLES, Row

WHOLE = 200
"""epochs in the paper"""
SHARE = 0.7
"""of the time that is left, which steps are to take: dictionaries and tests take some, too"""
SEED = 300
"""seconds, at most, that all rows are to take on a large GPU"""
EPOCHS = "Table 1, epochs"


@dataclass
class Table1:
    """The rows of the table, each trained for the same number of epochs."""

    arguments: list[str]
    """settings for every row, as of `layerwise train`, such as --data.root"""
    left: Callable[[], float]
    """how many seconds there are"""
    epochs: int = 0
    """0: not known yet"""

    def __post_init__(self) -> None:
        names = {name for row in TABLES["table1"].rows for name in row.settings}
        check_sweep(1, self.arguments, ("depth", "config", "optimizer.epochs", *names))
        self._jobs(WHOLE)  # what cannot be is refused at once

    def checks(self) -> list[Check]:
        """How many epochs there is time for; each row; what all would take."""
        rows = [Check(f"Table 1, {row.name}", partial(self._row, row)) for row in TABLES["table1"].rows]
        return [Check(EPOCHS, self._scaled), *rows, Check("Table 1, seconds", self._seconds)]

    def _jobs(self, epochs: int) -> list[Job]:
        given = [*self.arguments, f"--optimizer.epochs={epochs}", "--wandb.mode=disabled"]
        runs = configured(TABLES["table1"].rows, f"check-gpu-{epochs}-epochs", 1, given)
        return [job for jobs in runs.values() for job in jobs]

    def _scaled(self) -> list[Finding]:
        whole = estimate(self._jobs(WHOLE))
        self.epochs = min(WHOLE, int(WHOLE * SHARE * self.left() / whole))
        if not self.epochs:
            raise TrainingFailed(f"one epoch of all rows takes {in_words(whole / WHOLE)}; give more --minutes")
        told = f"{self.epochs} of {WHOLE}, of which all take about {in_words(whole)}"
        return [Finding(EPOCHS, told, value=self.epochs)]

    def _row(self, row: Row) -> list[Finding]:
        if not self.epochs:
            raise TrainingFailed("it is not known for how many epochs there is time")
        job = self._job(row)
        if job.tested() is None:
            job.train()
        result = outcome(row, [job])
        told = f"{result.mean:.2f} % after {self.epochs} epochs, {result.seconds:.0f} s"
        return [Finding(f"Table 1, {row.name}", told, f"{row.paper} after {WHOLE} in the paper", value=result.mean)]

    def _job(self, row: Row) -> Job:
        return self._jobs(self.epochs)[TABLES["table1"].rows.index(row)]

    def _seconds(self) -> list[Finding]:
        rows = TABLES["table1"].rows
        if not self.epochs or any(self._job(row).tested() is None for row in rows):
            raise TrainingFailed("some rows are not trained yet")
        whole = sum(outcome(row, [self._job(row)]).seconds for row in rows) * WHOLE / self.epochs
        what = f"Table 1, seconds of {WHOLE} epochs, by those of {self.epochs}"
        return [Finding(what, f"{whole:.0f}", f"≤ {SEED}", whole <= SEED, whole)]
