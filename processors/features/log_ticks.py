"""One symbol's ticks out of the records of a partition."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from schemas.errors import MyStocksError
from schemas.processing import MessageBatch

if TYPE_CHECKING:
    from schemas.ticks import SymbolTable, TickDecoder

_NO_TIMES: NDArray[np.int64] = np.empty(0, np.int64)
_NO_VALUES: NDArray[np.float64] = np.empty(0, np.float64)


class TooManyTicksError(MyStocksError):
    """A symbol has more ticks than may be held in memory."""


@dataclass(frozen=True, slots=True)
class SymbolTicks:
    """Ticks of one symbol in the order of the log.

    Attributes:
        event_time_ns: int64 [n], nanoseconds since 1970 (UTC).
        price: float64 [n].
        size: float64 [n].
    """

    event_time_ns: NDArray[np.int64]
    price: NDArray[np.float64]
    size: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.price)


class TickCollector:
    """Decodes records as the live features do, and keeps one symbol's ticks.

    Args:
        decoder: Bytes to columns; serves one thread.
        new_symbols: Makes a symbol table with the bound of the live features, which refuse symbols
            beyond it.
        most: Ticks to hold.
    """

    def __init__(
        self, decoder: "TickDecoder", new_symbols: "Callable[[], SymbolTable]", most: int
    ) -> None:
        self._decoder = decoder
        self._new_symbols = new_symbols
        self._most = most

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
        times, prices, sizes = [_NO_TIMES], [_NO_VALUES], [_NO_VALUES]
        count = 0
        for batch in batches:
            ticks, _ = self._decoder.decode(
                batch.values, batch.content_types, batch.timestamps_ms, symbols
            )
            # A symbol that is not in the table has the code -1, which no tick has.
            rows = np.flatnonzero(ticks.code == symbols.lookup(symbol))
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
            prices.append(ticks.price[rows])
            sizes.append(ticks.size[rows])
            count += len(rows)
        return SymbolTicks(np.concatenate(times), np.concatenate(prices), np.concatenate(sizes))
