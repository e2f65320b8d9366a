"""Calls of W&B that cost no more than a bounded time and a printed line, whatever fails or hangs."""

import os
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any


class Calls:
    """Makes every call of W&B, one after another, in a thread of its own, which may hang without holding up others."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        Thread(target=self._work, daemon=True, name="W&B").start()

    def __call__(self, call: Callable[[], Any], limit: float) -> Any:
        """Make a call and return what it does, raise what it raises, or TimeoutError."""
        answer: SimpleQueue[Any] = SimpleQueue()
        self._waiting.put((call, answer))
        try:
            result, error = answer.get(timeout=limit)
        except Empty:
            raise TimeoutError(f"no answer in {limit:.0f} seconds") from None
        if error is not None:
            raise error
        return result

    def _work(self) -> None:
        while True:
            call, answer = self._waiting.get()
            try:
                answer.put((call(), None))
            except BaseException as error:  # such as SystemExit, which is not for the training
                answer.put((None, error if isinstance(error, Exception) else RuntimeError(repr(error))))


def spared(what: str, call: Callable[[], object]) -> None:
    """Make a call whose failure is said, and costs no more than what it was for."""
    try:
        call()
    except Exception as error:
        print(f"W&B: {what} failed ({in_a_line(error)}), all else goes on", flush=True)


def abandon() -> None:
    """End W&B's own process, which this one would wait for at its exit, even where that process hangs.

    The next run that is opened starts another.
    """
    try:
        import wandb
        from wandb.sdk import wandb_setup

        connection: Any = wandb.setup()._connection
        connection._cleanup()  # what it does at the exit
        connection._proc._process.kill()
        wandb_setup._singleton = None
        os.environ.pop("WANDB_SERVICE", None)
    except Exception:  # it is not there, or where another version has it
        return


def in_a_line(error: Exception) -> str:
    """What an error says, shortly."""
    return " ".join(str(error).split())[:200]
