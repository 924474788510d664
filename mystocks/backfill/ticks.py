"""Rows of a file as ticks, and sending them."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from mystocks.backfill.bars import Columns, Symbols
from mystocks.backfill.times import to_utc, zone_of
from mystocks.sdk.producer import TickProducer
from schemas.settings import Settings
from schemas.ticks.rules import MIN_EVENT_TIME_NS

# Of one record; a larger one would not make it faster.
_TICKS_PER_RECORD = 5000
# A progress bar wants news between two pieces.
_PIECE_ROWS = 262_144
_OPTIONAL = ("size", "bid", "ask", "sequence", "volume", "amount")


class TickSender:
    """Sends ticks to a topic, which must exist.

    Args:
        settings: Where Kafka is.
        topic: Where to.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._producer = TickProducer(
            settings=settings, topic=topic, format="arrow", batch_ticks=_TICKS_PER_RECORD
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._producer.close()

    @staticmethod
    def read(columns: Columns, symbols: Symbols, zone: str) -> Any:
        """Returns the acceptable ticks of a piece as a table; `columns` has the others."""
        codes = columns.codes(symbols)
        times = to_utc(columns.times(), zone_of(zone))
        columns.refuse(times < MIN_EVENT_TIME_NS, "time is before 1973-03-03")
        price = columns.floats("price")
        columns.refuse(~((price > 0) & (price < np.inf)), "price is not a number above 0")
        others = {name: columns.floats(name) for name in _OPTIONAL if columns.has(name)}
        for name, values in others.items():
            columns.refuse((values < 0) | np.isinf(values), f"{name} is negative or infinite")
        good = columns.good
        names = pa.array(symbols.names, pa.utf8())
        table = {
            "symbol": pa.DictionaryArray.from_arrays(codes[good], names).dictionary_decode(),
            "event_time_ns": times[good],
            "price": price[good],
        }
        for name, values in others.items():
            present = values[good]
            missing = np.isnan(present)
            if name == "size":
                table[name] = np.where(missing, 0.0, present)
            elif name == "sequence":
                whole = np.where(missing, 0, present).astype(np.int64)
                table[name] = pa.array(whole, mask=missing)
            else:
                table[name] = pa.array(present, mask=missing)
        return pa.table(table)

    def send(self, table: Any, sent: Callable[[int], None]) -> None:
        """Sends ticks in order of time, those of equal times as they are.

        Args:
            table: As from `read`.
            sent: Is told how many went out.

        Raises:
            DeliveryError: The broker did not take earlier ones.
        """
        times = table.column("event_time_ns").to_numpy()
        if (times[1:] < times[:-1]).any():
            table = table.take(np.argsort(times, kind="stable"))
        for first in range(0, table.num_rows, _PIECE_ROWS):
            sent(self._producer.send_many(table.slice(first, _PIECE_ROWS)))
