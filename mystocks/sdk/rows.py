"""What a subscriber yields: feature rows, or whole blocks of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa


class FeatureRow(NamedTuple):
    """The features of one symbol after one tick.

    Attributes:
        symbol: The symbol.
        event_time_ns: Event time of the tick, nanoseconds since 1970 in UTC.
        price: Price of the tick.
        values: Feature name to value; None while a feature is warming up.
        partition: Partition of the topic; with `row` the identity of this row.
        row: Gap-free count of the rows of this partition, from 0.
    """

    symbol: str
    event_time_ns: int
    price: float
    values: dict[str, float | None]
    partition: int
    row: int


@dataclass(frozen=True, slots=True)
class FeatureBlock:
    """One record of the features topic, less the rows that were not asked for.

    Attributes:
        batch: Columns ``symbol, event_time (timestamp[ns, UTC]), price``, then one per feature.
        rows: Row number of each row of `batch`.
        last_row: Last row number of the record, also where that row was left out.
        partition: Partition of the topic.
        offset: Offset of the record.
        timestamp_ms: Timestamp of the record, milliseconds since 1970 in UTC.
        headers: Headers of the record, decoded as ASCII.
    """

    batch: pa.RecordBatch
    rows: Sequence[int]
    last_row: int
    partition: int
    offset: int
    timestamp_ms: int
    headers: Mapping[str, str]

    def part(self, start: int, stop: int | None = None) -> FeatureBlock:
        """Rows `start` to `stop` (excluded; None for all that follow) of this block."""
        rows = self.rows[start:stop]
        whole = stop is None or stop >= len(self.rows)
        return replace(
            self,
            batch=self.batch.slice(start, len(rows)),
            rows=rows,
            last_row=self.last_row if whole else rows[-1],
        )

    def __iter__(self) -> Iterator[FeatureRow]:
        symbols, times, prices, *features = (
            column.cast(pa.int64()).to_pylist()
            if pa.types.is_timestamp(column.type)
            else column.to_pylist()
            for column in self.batch.columns
        )
        names = self.batch.schema.names[3:]
        values = zip(*features, strict=True) if features else iter([()] * len(symbols))
        for symbol, time, price, row_values, row in zip(
            symbols, times, prices, values, self.rows, strict=True
        ):
            yield FeatureRow(
                symbol, time, price, dict(zip(names, row_values, strict=True)), self.partition, row
            )
