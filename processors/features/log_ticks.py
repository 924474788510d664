"""One symbol's ticks, or bars, out of the records of a partition."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from processors.features.row_rules import RowRules, corrections
from processors.order import TAKE
from schemas.errors import MyStocksError
from schemas.processing import MessageBatch

if TYPE_CHECKING:
    from processors.features.task import Decoder
    from schemas.ticks import SymbolTable, TickColumns

    Floats = NDArray[np.float64]

_NO_TIMES: NDArray[np.int64] = np.empty(0, np.int64)
_NO_VALUES: NDArray[np.float64] = np.empty(0, np.float64)


class TooManyTicksError(MyStocksError):
    """A symbol has more ticks than may be held in memory."""


@dataclass(frozen=True, slots=True)
class SymbolTicks:
    """Ticks of one symbol in the order of the log.

    Attributes:
        event_time_ns: int64 [n], nanoseconds since 1970 (UTC).
        price: float64 [n], of a bar its close.
        size: float64 [n], of a bar its volume.
        high: float64 [n], None where the log has no bars.
        low: Likewise.
    """

    event_time_ns: NDArray[np.int64]
    price: NDArray[np.float64]
    size: NDArray[np.float64]
    high: NDArray[np.float64] | None = None
    low: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.price)

    @property
    def inputs(self) -> "dict[str, Floats]":
        """Series by the indicators' names for them."""
        found = {"price": self.price, "high": self.high, "low": self.low, "size": self.size}
        return {name: values for name, values in found.items() if values is not None}


class TickCollector:
    """Decodes records as the live features do, and keeps one symbol's ticks.

    Args:
        decoder: Bytes to columns; serves one thread.
        new_symbols: Makes a symbol table with the bound of the live features, which refuse symbols
            beyond it.
        most: Ticks to hold.
        inputs: What the records carry.
        rules: Which ticks the live features take; None is every one.
    """

    def __init__(
        self,
        decoder: "Decoder",
        new_symbols: "Callable[[], SymbolTable]",
        most: int,
        *,
        inputs: Iterable[str] = ("price", "size"),
        rules: RowRules | None = None,
    ) -> None:
        self._decoder = decoder
        self._new_symbols = new_symbols
        self._most = most
        self._inputs = tuple(inputs)
        self._rules = rules or RowRules()
        self._order = self._rules.order()

    def collect(
        self, batches: Iterable[MessageBatch], symbol: str, end_ns: int | None = None
    ) -> SymbolTicks:
        """Returns the ticks of `symbol`.

        Args:
            batches: Records of one partition from its first one on.
            symbol: What to keep.
            end_ns: Ticks of this event time or later are not needed, unless an earlier one follows.

        Raises:
            TooManyTicksError: There are more than may be held.
        """
        symbols = self._new_symbols()
        times = [_NO_TIMES]
        series = {name: [_NO_VALUES] for name in self._inputs}
        state = np.zeros((1, self._order.state_width if self._order is not None else 0), np.int64)
        count = 0
        for batch in batches:
            ticks, _ = self._decoder.decode(
                batch.values, batch.content_types, batch.timestamps_ms, symbols
            )
            # A symbol that is not in the table has the code -1, which no tick has.
            rows = self._taken(ticks, np.flatnonzero(ticks.code == symbols.lookup(symbol)), state)
            if not len(rows):
                continue
            room = self._most - count
            if len(rows) > room:
                beyond = ticks.event_time[rows[room:]]
                if end_ns is None or (beyond < end_ns).any():
                    raise TooManyTicksError(
                        f"expected at most {self._most} ticks of {symbol} in the log, was more; "
                        "ask for a range that ends earlier, send the rows in the request, or raise "
                        "MYSTOCKS_COMPUTE__MAX_LOG_TICKS"
                    )
                rows = rows[:room]
            times.append(ticks.event_time[rows])
            for name, parts in series.items():
                parts.append(getattr(ticks, name)[rows])
            count += len(rows)
        return SymbolTicks(
            np.concatenate(times), **{name: np.concatenate(parts) for name, parts in series.items()}
        )

    def _taken(
        self, ticks: "TickColumns", rows: NDArray[np.intp], state: NDArray[np.int64]
    ) -> NDArray[np.intp]:
        """Returns those of one symbol's rows that the live features take."""
        passed_over = corrections(ticks, self._rules)
        if passed_over is not None:
            rows = rows[~passed_over[rows]]
        if self._order is not None and len(rows):
            code = np.zeros(len(rows), np.int32)
            verdict = self._order.judge(code, ticks.event_time[rows], ticks.sequence[rows], state)
            rows = rows[verdict == TAKE]
        return rows
