"""Ends the process when a call into librdkafka does not return."""

import os
import sys
import threading
import time
from collections.abc import Callable

import structlog

from streams.kafka.errors import RESTART_EXIT_CODE

_CHECK_EVERY_S = 0.5

_log = structlog.get_logger(__name__)


def leave(what: str, seconds: float) -> None:
    """Ends this process with the exit code that asks for a new one."""
    _log.error(
        "a call does not return; this process ends, so that a new one goes on",
        call=what,
        seconds=round(seconds, 1),
        exit_code=RESTART_EXIT_CODE,
    )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(RESTART_EXIT_CODE)


class Watchdog:
    """Watches one thread's blocking calls.

    A call has a time-out of its own; some do not keep it when a coordinator comes back at the
    wrong moment (seen with `send_offsets_to_transaction` while a broker restarts, librdkafka 2.16).
    Nothing can interrupt such a call, and nothing is lost by leaving: the transaction is aborted
    by the next process.

    Args:
        limit_s: A call that takes longer never returns.
        give_up: Called from the watching thread with the name of the call and how long it took.
    """

    def __init__(
        self, limit_s: float = 12.0, give_up: Callable[[str, float], None] = leave
    ) -> None:
        self._limit_s = limit_s
        self._give_up = give_up
        self._call: tuple[str, float] | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __call__(self, what: str, call: Callable[[], object]) -> None:
        """Makes a call and watches it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._call = (what, time.monotonic())
        try:
            call()
        finally:
            self._call = None

    def close(self) -> None:
        """Ends the watching; there are no more calls."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_CHECK_EVERY_S):
            current = self._call
            if current is not None:
                what, began = current
                took = time.monotonic() - began
                if took > self._limit_s:
                    self._give_up(what, took)
                    return
