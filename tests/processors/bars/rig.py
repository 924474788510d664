"""Bar tasks without Kafka: ticks in, bars as rows out."""

import json
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import NamedTuple, TypeVar

import numpy as np

from processors.bars.calendars import Calendars
from processors.bars.rules import BarRules
from processors.bars.task import BarTask
from schemas.bars import decode_bars
from schemas.processing import Produced
from schemas.ticks import SymbolTable, TickDecoder

Task = TypeVar("Task", bound=BarTask)

SECOND = 10**9
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND


@cache
def calendars() -> Calendars:
    return Calendars.load()


class Bar(NamedTuple):
    symbol: str
    interval: str
    start: int
    end: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    amount: float
    trades: int
    revision: int


class Batch:
    """A `MessageBatch`."""

    partition = 0
    content_types = None

    def __init__(self, values: Sequence[bytes], first_offset: int = 0) -> None:
        self.values = list(values)
        self.first_offset = first_offset
        self.offsets = np.arange(first_offset, first_offset + len(values))
        self.timestamps_ms = np.full(len(values), -1)


def tick(symbol: str, time: int, price: float, **more: float) -> bytes:
    """One tick as a message; sizes are 1 unless they say otherwise."""
    fields = {"symbol": symbol, "event_time_ns": time, "price": price, "size": 1.0} | more
    return json.dumps(fields).encode()


def task_of(
    rules: BarRules, idle_timeout_ns: int = 10 * SECOND, kind: type[Task] = BarTask
) -> Task:
    return kind(
        0,
        rules,
        calendars(),
        TickDecoder(),
        tuple(interval.name for interval in rules.intervals),
        partial(SymbolTable, 100_000),
        idle_timeout_ns=idle_timeout_ns,
    )


def bars_of(*produced: Produced | None) -> list[Bar]:
    """Returns the bars of blocks; topics are interval names."""
    blocks = [block for one in produced if one is not None for block in one.blocks]
    return [bar for block in blocks for bar in bars_in(block.value, block.topic)]


def bars_in(value: bytes, interval: str) -> list[Bar]:
    """Returns the bars of a record."""
    names, bars = decode_bars(value)
    columns = (
        bars.start_time, bars.end_time, bars.open, bars.high, bars.low, bars.close,
        bars.volume, bars.amount, bars.trades, bars.revision,
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Bar(names[code], interval, *row) for code, row in zip(bars.code.tolist(), rows, strict=True)
    ]


class Feed:
    """A task that is given ticks one message after the other."""

    def __init__(self, rules: BarRules, **options: int) -> None:
        self.task = task_of(rules, **options)
        self.offset = 0
        self.last: Produced | None = None

    def __call__(self, *messages: bytes) -> list[Bar]:
        """Processes messages as one batch and returns the bars that closed."""
        self.last = self.task.process(Batch(messages, self.offset), 0)
        self.offset += len(messages)
        return bars_of(self.last)

    def at(self, now_ns: int) -> list[Bar]:
        """Tells the task what time it is and returns the bars that it closed."""
        return bars_of(self.task.on_clock(now_ns))


def last_revisions(bars: Iterable[Bar]) -> dict[tuple, Bar]:
    """Returns the bar that counts of every symbol, interval and end."""
    found: dict[tuple, Bar] = {}
    for bar in bars:
        key = (bar.symbol, bar.interval, bar.end)
        assert bar.revision == (found[key].revision + 1 if key in found else 0), (bar, found[key])
        found[key] = bar
    return found
