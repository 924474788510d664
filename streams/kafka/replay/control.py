"""Pausing, resuming and ending a replay from another thread."""

import threading
from typing import Literal

Ending = Literal["cancelled", "released"]


class ReplayControl:
    """What a running replay is told; all methods may be called from any thread.

    Attributes:
        reason: Why it was cancelled.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._changed = threading.Condition()
        self._paused = False
        self._ending: Ending | None = None

    @property
    def paused(self) -> bool:
        """Whether the clock is to stand."""
        return self._paused

    @property
    def ending(self) -> Ending | None:
        """Whether and how the replay is to end before its end."""
        return self._ending

    def pause(self) -> None:
        """Lets the clock stand until `resume`."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Lets the clock go on."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def cancel(self, reason: str) -> None:
        """Ends the replay for good; rows that are out stay."""
        with self._changed:
            if self._ending is None:
                self._ending, self.reason = "cancelled", reason
            self._changed.notify_all()

    def release(self) -> None:
        """Ends the replay here; it goes on where it is started again."""
        with self._changed:
            if self._ending is None:
                self._ending = "released"
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Returns when something was told, or after the time."""
        with self._changed:
            if self._ending is None:
                self._changed.wait(timeout_s)
