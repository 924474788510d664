"""Ticks between the code that sends them and the stream that takes them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from mystocks.sdk.columns import TYPES
from mystocks.sdk.encoding import Columns, columns_of
from mystocks.sdk.tick import Tick
from schemas.errors import InvalidInputError

# Ticks of one request: below the smallest limit that a bridge may set on messages (64 KiB).
BATCH_TICKS = 500
# Ticks that may wait: enough to keep the stream busy while the sender is not scheduled.
_MAX_WAITING = 20_000


class TickBuffer:
    """A bounded queue of ticks that leave in batches; may be filled from several threads.

    Args:
        wake: Called when ticks are there to be taken after there were none.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._room = threading.Condition()
        self._batches: deque[Columns] = deque()
        self._open: list[Tick] = []
        self._waiting = 0
        self._sent = 0
        self._closed = False
        self._error: Exception | None = None

    @property
    def sent(self) -> int:
        """Ticks accepted so far."""
        return self._sent

    @property
    def waiting(self) -> int:
        """Ticks that wait to be taken."""
        return self._waiting

    @property
    def is_closed(self) -> bool:
        """Whether no more ticks are accepted."""
        return self._closed

    def add(self, tick: Tick) -> bool:
        """Accepts a tick; False when the buffer is full.

        Raises:
            MyStocksError: The buffer is closed, or what `fail` was given.
        """
        with self._room:
            if not self._accepts():
                return False
            self._open.append(tick)
            if len(self._open) >= BATCH_TICKS:
                self._seal()
            self._count(1)
        return True

    def add_columns(self, columns: Columns, count: int) -> bool:
        """Accepts `count` ticks in columns as one batch; False when the buffer is full.

        Raises:
            MyStocksError: As `add`.
        """
        with self._room:
            if not self._accepts():
                return False
            self._seal()
            self._batches.append(columns)
            self._count(count)
        return True

    def wait_for_room(self, timeout_s: float) -> bool:
        """Blocks the thread while the buffer is full; False after the time-out."""
        with self._room:
            return self._room.wait_for(self.has_room, timeout_s)

    def take(self) -> Columns | None:
        """Returns the oldest batch; None where there is none."""
        with self._room:
            if not self._batches:
                self._seal()
                if not self._batches:
                    return None
            batch = self._batches.popleft()
            self._waiting -= len(batch[0] or ())
            self._room.notify_all()
            return batch

    def close(self) -> None:
        """Accepts no more ticks; those that wait can still be taken."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._wake()

    def drain(self) -> list[Columns]:
        """Takes all that waits."""
        batches = []
        while (columns := self.take()) is not None:
            batches.append(columns)
        return batches

    def fail(self, error: Exception) -> None:
        """Lets every further call raise `error`."""
        with self._room:
            self._error = error
            self._room.notify_all()

    def has_room(self) -> bool:
        """Whether `add` would do something else than return False."""
        return self._waiting < _MAX_WAITING or self._closed or self._error is not None

    def _accepts(self) -> bool:
        if self._error is not None:
            # It may be raised several times; traces of earlier ones would add up.
            raise self._error.with_traceback(None)
        if self._closed:
            raise InvalidInputError("expected an open stream, was closed; open another one")
        return self._waiting < _MAX_WAITING

    def _seal(self) -> None:
        if self._open:
            self._batches.append(columns_of(self._open))
            self._open = []

    def _count(self, added: int) -> None:
        self._sent += added
        self._waiting += added
        if self._waiting == added:
            self._wake()


def table_batches(table: pa.Table) -> list[tuple[Columns, int]]:
    """Returns the batches of a checked table of ticks (`tick_table`), and their lengths."""
    batches: list[tuple[Columns, int]] = []
    for start in range(0, table.num_rows, BATCH_TICKS):
        part = table.slice(start, BATCH_TICKS)
        values: dict[str, list[Any]] = part.to_pydict()
        batches.append(([values.get(name) for name in TYPES], part.num_rows))
    return batches


def tick_at(columns: Columns, row: int) -> Tick:
    """Returns one tick of a batch."""
    symbol, time, price, size, *rest = (None if c is None else c[row] for c in columns)
    return Tick(str(symbol), time, price, size or 0.0, *rest)  # type: ignore[arg-type]
