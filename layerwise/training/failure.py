"""The error that stops a training."""


class TrainingFailed(RuntimeError):
    """The training cannot go on; the message says where, why, and what to do."""
