"""Bars as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What `BarColumns.trades` says where nobody counted them.
NO_TRADES = -1
FLOAT_COLUMNS = ("open", "high", "low", "close", "volume", "amount")
_DTYPES = {
    "code": np.int32,
    "start_time": np.int64,
    "end_time": np.int64,
    **dict.fromkeys(FLOAT_COLUMNS, np.float64),
    "trades": np.int64,
    "revision": np.int32,
}


@dataclass(frozen=True)
class BarColumns:
    """Bars of any symbols; all arrays have the same length n.

    A bar is identified by (symbol, end_time, revision); of several revisions the highest counts,
    and of equal ones the later in the log.

    Attributes:
        code: int32 [n], index into a list of symbols that goes with the columns.
        start_time: int64 [n], nanoseconds since 1970-01-01 UTC, inclusive.
        end_time: int64 [n], likewise, exclusive; it is the bar's event time.
        open: float64 [n], price of the first trade.
        high: float64 [n].
        low: float64 [n].
        close: float64 [n].
        volume: float64 [n], traded quantity.
        amount: float64 [n], traded money; NaN where unknown.
        trades: int64 [n], number of trades or ticks; `NO_TRADES` where unknown.
        revision: int32 [n], 0 for the first time a bar is closed, then counted up.
    """

    code: NDArray[np.int32]
    start_time: NDArray[np.int64]
    end_time: NDArray[np.int64]
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    amount: NDArray[np.float64]
    trades: NDArray[np.int64]
    revision: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: Any) -> "BarColumns":
        """Returns some of the bars.

        Args:
            rows: Anything that indexes an array: a slice, positions, or a mask.
        """
        return BarColumns(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: Sequence["BarColumns"]) -> "BarColumns":
        """Returns the bars of all parts, whose codes are indices into the same list of symbols."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            **{
                name: np.concatenate([np.empty(0, dtype), *(getattr(part, name) for part in parts)])
                for name, dtype in _DTYPES.items()
            }
        )

    @classmethod
    def empty(cls) -> "BarColumns":
        """Returns no bars."""
        return cls.concatenate(())
