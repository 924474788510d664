"""Temporary directories that do not pile up when their owner is killed."""

import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO

_PREFIX = "mystocks-ephemeral-"
_LOCK_NAME = "owner.lock"


class TemporaryDirectory:
    """A directory below the system's temporary one; its owner holds a lock in it.

    Making one also removes those whose owner ended without doing so.
    """

    def __init__(self) -> None:
        """Makes the directory."""
        remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock: IO[str] = (self.path / _LOCK_NAME).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def lock(self) -> int:
        """File descriptor of the lock; processes that inherit it are owners too."""
        return self._lock.fileno()

    def remove(self) -> None:
        """Removes the directory with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def remove_abandoned() -> None:
    """Removes temporary directories without a living owner."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            with (directory / _LOCK_NAME).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:  # it has an owner, or belongs to another user
            continue
