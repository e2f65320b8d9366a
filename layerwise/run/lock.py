"""A directory that one process at a time writes to."""

import errno
import fcntl
import os
import socket
from pathlib import Path

import filelock

from layerwise.errors import RunInUse

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""what a file system answers that has no locks, as network file systems may"""

ASKED = 0.2
"""seconds in which whoever asks for the holder, and has a lock for that moment, is done"""


class Lock:
    """The lock of a directory. The system frees it with the process, however that ends.

    Where the file system has no locks, a file stands for one, which a process of the same machine takes over from one
    that is gone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: filelock.BaseFileLock | None = None

    def acquire(self) -> None:
        """Take the lock, or raise RunInUse, which names who has it."""
        held: filelock.BaseFileLock = filelock.FileLock(self.folder / ".lock")
        try:
            try:
                held.acquire(timeout=ASKED, poll_interval=ASKED / 10)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                held = filelock.SoftFileLock(self.folder / ".lock-file")
                held.acquire(blocking=False)
        except filelock.Timeout as error:
            by = self._owner.read_text(encoding="utf-8") if self._owner.exists() else "another process"
            file = f", or delete {held.lock_file} where it is gone" if isinstance(held, filelock.SoftFileLock) else ""
            raise RunInUse(
                f"run_dir: {self.folder} is in use by {by}; wait for it, give another folder{file}"
            ) from error
        self._held = held
        self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")

    def release(self) -> None:
        """Let others have it."""
        if self._held is not None:
            self._owner.unlink(missing_ok=True)
            self._held.release()
            self._held = None

    def holder(self) -> str | None:
        """Who has the lock, in words; None where it is free. It stays as it is."""
        try:
            who = self._owner.read_text(encoding="utf-8", errors="replace")  # which a kill leaves there
        except OSError:
            return None
        try:
            with (self.folder / ".lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return who
        except OSError:
            return who if (self.folder / ".lock-file").exists() and not _has_ended(who) else None
        return None

    @property
    def _owner(self) -> Path:
        return self.folder / ".owner"


def _has_ended(who: str) -> bool:
    """Whether a process of this machine is gone."""
    number, _, host = who.removeprefix("process ").partition(" on ")
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # it belongs to someone else, or is no number of a process
        pass
    return False
