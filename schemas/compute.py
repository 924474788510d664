"""A request for features, and its answer, as columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Times: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """One symbol's rows, oldest first.

    Attributes:
        event_time_ns: int64 [n], nanoseconds since 1970 (UTC), never falling; None where the
            request has none.
        columns: float64 [n] by field (``open``, ``high``, ``low``, ``close``, ``volume``); absent
            ones are not in it.
    """

    event_time_ns: Times | None
    columns: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.columns["close"])


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """An acceptable request.

    Attributes:
        features: Names as they came; whether they exist is for the computation to say.
        profile: ``talib`` or ``cn``, or what came in its place.
        symbol: May be empty where there are rows.
        rows: What to compute on; None is the log.
        start_ns: Rows of this event time or later are returned; None is no bound.
        end_ns: Rows before this event time are returned; None is no bound.
        last: Only the newest so many rows are returned; 0 is all.
    """

    features: tuple[str, ...]
    profile: str
    symbol: str
    rows: Rows | None
    start_ns: int | None
    end_ns: int | None
    last: int


@dataclass(frozen=True, slots=True)
class ComputedRows:
    """The answer to a request.

    Attributes:
        names: Columns.
        symbol: Of all rows; may be empty.
        event_time_ns: int64 [n], nanoseconds since 1970 (UTC); None where the request's rows have
            no times.
        prices: float64 [n].
        values: float64 [columns, n], NaN is "not warmed up yet".
    """

    names: Sequence[str]
    symbol: str
    event_time_ns: Times | None
    prices: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.prices)

    @staticmethod
    def encoded_bytes(columns: int, rows: int) -> int:
        """Returns how many bytes the numbers of so many columns and rows take as protobuf."""
        # Time, price and values, and an index of the symbol.
        return rows * (8 * (columns + 2) + 1)
