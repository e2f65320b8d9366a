"""The errors that the command answers with one line: exit code 2 for the first, 1 for the others."""


class SettingError(ValueError):
    """A setting that cannot work: the message names the setting, its value, and what to do."""


class RunInUse(SettingError):
    """Another process is training in the run directory."""


class NoRun(SettingError, FileNotFoundError):
    """Where a run is to be read, there is none that has a finished layer."""


TOLD_ELSEWHERE = "another process of the same training tells this"
"""a note to an error, that the command which is ended by it does not print it"""


class DamagedRun(RuntimeError):
    """A file of a run directory is not what was written; the message names it and says what to do."""


class TrainingFailed(RuntimeError):
    """The training cannot go on; the message says where, why, and what to do."""
