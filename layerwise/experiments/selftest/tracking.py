"""W&B, which is away, answers nonsense, or dies: the training goes on."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from layerwise.experiments.selftest.bench import FIRST, Bench, Outcome, differing
from layerwise.experiments.selftest.command import Within, call


def untracked(bench: Bench) -> Outcome:
    """Let W&B's server fail or not be there, and its own process die or hang."""
    outcome = Outcome("W&B away, failing, killed or hanging: the training ends with the same files")
    trials: dict[str, tuple[str, Within]] = {
        "its process killed": ("offline", partial(_signaled_service, signal.SIGKILL)),
        "no server": ("online", partial(_served_at, "http://127.0.0.1:9")),
        "a server that answers 500": ("online", _failing_server),
        "its process stopped": ("offline", partial(_signaled_service, signal.SIGSTOP)),
    }
    for what, (mode, within) in list(trials.items())[: bench.count(len(trials))]:  # the quick ones first
        place = bench.place()
        end = call(place, bench.command(FIRST, f"--wandb.mode={mode}"), within=within)
        failure = "" if end.code == 0 and "W&B: " in end.printed else f"exit code {end.code}, {end.printed[-300:]!r}"
        call(place, bench.command(FIRST))  # whose configuration, too, is the same
        outcome.add(what, failure or differing(place / "r", bench.shallow))
    return outcome


@contextmanager
def _served_at(address: str) -> Iterator[None]:
    os.environ |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0123456789" * 4}
    yield


class _Fails(BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_GET(self) -> None:
        """Fail."""
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def _failing_server() -> Iterator[None]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Fails) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with _served_at(f"http://127.0.0.1:{server.server_port}"):
            yield
        server.shutdown()


@contextmanager
def _signaled_service(number: signal.Signals) -> Iterator[None]:
    """Send a signal to W&B's process once it is there."""
    own = str(os.getpid())

    def watch() -> None:
        while True:
            time.sleep(0.2)
            for path in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):
                    name, _, rest = path.read_text().partition("(")[2].rpartition(")")
                    if name.startswith("wandb") and rest.split()[1] == own:
                        time.sleep(0.3)
                        os.kill(int(path.parent.name), number)
                        return

    Thread(target=watch, daemon=True).start()
    yield
