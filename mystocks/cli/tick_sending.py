"""Sending the ticks of a file, paced, with a progress bar."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mystocks.cli.tick_file import TickFile
from mystocks.sdk.columns import Where, tick_table
from mystocks.sdk.producer import TickProducer
from schemas.errors import InvalidInputError

# A paced sender wakes this often and sends what is due.
_TICK_S = 0.01
# A progress bar and Ctrl-C want a look between two pieces.
_PIECE_ROWS = 16_384


@dataclass(frozen=True)
class Pace:
    """How fast ticks go out.

    Attributes:
        rate: At most this many ticks a second, or None.
        speed: Event time passes this many times as fast as time, or None.
    """

    rate: float | None = None
    speed: float | None = None

    @classmethod
    def parse(cls, rate: float | None, speed: float | None) -> "Pace":
        """Checks the options.

        Raises:
            InvalidInputError: A value is not acceptable; the message names the option.
        """
        for name, value in (("--rate", rate), ("--speed", speed)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidInputError(f"expected a number above 0, was {value} ({name})")
        if rate is not None and speed is not None:
            raise InvalidInputError("expected --rate or --speed, was both; leave one out")
        return cls(rate, speed)


def send_file(
    source: TickFile, producer: TickProducer, pace: Pace, *, show: bool, label: str = "ticks"
) -> dict[str, Any]:
    """Sends all ticks and waits until they are acknowledged.

    Args:
        source: The ticks.
        producer: Where to.
        pace: How fast.
        show: Whether to show a progress bar on standard error.
        label: Name of the bar.

    Returns:
        Counts and times: topic, ticks, symbols, seconds, ticks_per_second.

    Raises:
        InvalidInputError: A tick is not acceptable; those of earlier pieces are sent.
        DeliveryError: Ticks were not acknowledged.
    """
    sent = 0
    symbols: set[str] = set()
    began = time.monotonic()
    clock = _Clock(pace)
    with _bar(show) as bar:
        task = bar.add_task(label, total=source.total)
        for table in source.tables:
            checked = tick_table(table, _later(source.row_name, sent))
            symbols.update(checked["symbol"].unique().to_pylist())
            for piece in clock.pieces(checked, sent):
                sent += producer.send_many(piece)
                bar.update(task, completed=sent)
        producer.flush()
        bar.update(task, total=sent)
    seconds = time.monotonic() - began
    return {
        "topic": producer.topic,
        "ticks": sent,
        "symbols": len(symbols),
        "seconds": seconds,
        "ticks_per_second": sent / seconds if seconds else 0.0,
    }


def _later(row_name: Where, first: int) -> Where:
    return lambda row: row_name(first + row)


class _Clock:
    """Cuts tables into pieces and waits until each is due."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._start: float | None = None
        self._first_ns: int | None = None

    def pieces(self, table: pa.Table, sent: int) -> Iterator[pa.Table]:
        """Yields pieces of `table`, before which `sent` ticks went out."""
        done = 0
        if self._start is None:
            self._start = time.monotonic()
        while done < table.num_rows:
            rest = min(table.num_rows - done, _PIECE_ROWS)
            due = self._due(table.slice(done, rest), sent + done)
            if due:
                yield table.slice(done, due)
                done += due
            else:
                time.sleep(_TICK_S)

    def _due(self, rest: pa.Table, sent: int) -> int:
        assert self._start is not None
        passed = time.monotonic() - self._start
        if self._pace.rate is not None:
            allowed = 1 + int(passed * self._pace.rate) - sent
            return int(max(0, min(rest.num_rows, allowed)))
        if self._pace.speed is not None:
            times = rest["event_time_ns"]
            if self._first_ns is None:
                self._first_ns = times[0].as_py()
            now = self._first_ns + int(passed * self._pace.speed * 1e9)
            first_later = pc.index(pc.greater(times, now), True).as_py()
            return int(first_later if first_later >= 0 else rest.num_rows)
        return int(rest.num_rows)


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not show,
        transient=False,
    )
