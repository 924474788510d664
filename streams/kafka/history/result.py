"""What a reading of a topic's history gives back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import InvalidInputError
from schemas.features.blocks import EVENT_TIME, SYMBOL


@dataclass(frozen=True)
class History:
    """Values of a topic, aligned by symbol and event time.

    ``history["close"]`` is float64 [symbols, times]; NaN where there is no row, or no value in it.

    Attributes:
        topic: The topic.
        symbols: Name of each row of the arrays.
        times: int64 [times], event times of the columns, ascending, nanoseconds since 1970-01-01
            UTC. For bars it is the end of the bar.
        values: Name to float64 [symbols, times].
        topic_id: Kafka's id of the topic.
        offsets: First offset and the one after the last, by partition: the part of the log that
            was read. With `topic_id` it identifies the data.
    """

    topic: str
    symbols: tuple[str, ...]
    times: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    topic_id: str
    offsets: Mapping[int, tuple[int, int]]

    def __getitem__(self, column: str) -> NDArray[np.float64]:
        try:
            return self.values[column]
        except KeyError:
            raise InvalidInputError(
                f"expected one of the columns {', '.join(self.values)}, was {column!r}; name it "
                "in `columns` when reading"
            ) from None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of symbols and of times."""
        return len(self.symbols), len(self.times)

    def to_arrow(self) -> Any:
        """Returns a `pyarrow.Table` with one row per symbol and time at which any value is known.

        Columns: symbol, event_time (timestamp[ns, UTC]) and the values, where NaN is null; sorted
        by time, then symbol.
        """
        known = np.zeros(self.shape[::-1], np.bool_)
        for values in self.values.values():
            known |= ~np.isnan(values.T)
        time, row = np.nonzero(known)
        symbol = pa.DictionaryArray.from_arrays(
            pa.array(row.astype(np.int32)), pa.array(self.symbols, pa.string())
        )
        times = pa.array(self.times[time]).view(pa.timestamp("ns", "UTC"))
        columns = {
            name: pa.array(values.T[time, row], from_pandas=True)
            for name, values in self.values.items()
        }
        return pa.table({SYMBOL: symbol, EVENT_TIME: times, **columns})

    def to_pandas(self) -> Any:
        """Returns a `pandas.DataFrame`: one row per time, columns (value, symbol).

        ``history.to_pandas()["close"]`` has one column per symbol.

        Raises:
            InvalidInputError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise InvalidInputError(
                "expected pandas to be installed, was not; install it, or use `to_arrow` or the "
                "arrays"
            ) from None
        index = pd.DatetimeIndex(pd.to_datetime(self.times, utc=True), name=EVENT_TIME)
        columns = pd.MultiIndex.from_product(
            [list(self.values), list(self.symbols)], names=["value", SYMBOL]
        )
        stacked = np.concatenate([values.T for values in self.values.values()], axis=1)
        return pd.DataFrame(stacked, index=index, columns=columns)
