"""Feature rows in columns: what calls of a client return, and blocks of a subscription."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from math import isnan
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mystocks.sdk.arrow_frame import ArrowFrame
from mystocks.sdk.errors import BridgeError
from mystocks.sdk.frame_text import frame_text
from mystocks.sdk.rows import FeatureRow
from mystocks.v1 import market_pb2
from schemas.errors import InvalidInputError
from schemas.features import EVENT_TIME, PRICE, SYMBOL

_NO_IDENTITY = -1


class FeatureFrame(ArrowFrame):
    """Some rows of a feature set, in columns.

    A frame has a length, can be iterated (`FeatureRow`) and indexed by row number, and prints as a
    table. It cannot be changed. ``frame.to_arrow()``, ``to_pandas()`` and ``to_polars()`` give the
    columns ``symbol, event_time (timestamp[ns, UTC]), price``, then one per feature, null while it
    is warming up.

    Args:
        block: The message that holds the rows.
        names: Features to keep, in this order; None keeps all.
        unknown_symbols: Symbols that were asked for and have no features.
        keep: Rows to keep, by number and ascending; None keeps all.

    Raises:
        BridgeError: The columns of the message do not fit together.
        InvalidInputError: One of `names` is not in the message.
    """

    def __init__(
        self,
        block: market_pb2.FeatureBlock,
        names: Sequence[str] | None = None,
        *,
        unknown_symbols: Sequence[str] = (),
        keep: Sequence[int] | None = None,
    ) -> None:
        self._block = block
        self._length = max(len(block.event_time_ns), len(block.prices))
        self._check()
        sent = list(block.names)
        missing = [name for name in names or () if name not in sent]
        if missing and self._length:
            raise InvalidInputError(
                f"expected some of the features {', '.join(sent) or 'of which there is none'}, was "
                f"{missing[0]!r:.80} (features); correct it"
            )
        self._names = tuple(sent if names is None else (n for n in names if n in sent))
        self._places = [sent.index(name) for name in self._names]
        self._keep: Sequence[int] = range(self._length) if keep is None else keep
        self._unknown_symbols = tuple(unknown_symbols)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return self._names

    @property
    def unknown_symbols(self) -> tuple[str, ...]:
        """Symbols that were asked for and have no features so far."""
        return self._unknown_symbols

    @property
    def set_hash(self) -> str:
        """Identifies names, parameters, profile, precision and sources of the feature set."""
        return self._block.set_hash

    @property
    def partition(self) -> int:
        """Partition of the topic that the rows are in; -1 where they are in none, or in several."""
        return self._block.first_row.partition if self._has_identity else _NO_IDENTITY

    @cached_property
    def rows(self) -> Sequence[int]:
        """Row number of each row, with `partition` its identity; -1 where that is so."""
        if not self._has_identity:
            return [_NO_IDENTITY] * len(self)
        first = self._block.first_row.row
        if self._block.row_offset:
            offsets = self._block.row_offset
            return [first + offsets[i] for i in self._keep]
        if isinstance(self._keep, range):
            return range(first + self._keep.start, first + self._keep.stop)
        return [first + i for i in self._keep]

    @property
    def _has_identity(self) -> bool:
        return self._block.HasField("first_row")

    def part(self, start: int, stop: int | None = None) -> FeatureFrame:
        """Returns rows `start` to `stop` (excluded; None for all that follow)."""
        return self.take(range(len(self))[start:stop])

    def take(self, rows: Sequence[int]) -> FeatureFrame:
        """Returns the rows with these numbers, which ascend."""
        if isinstance(self._keep, range) and isinstance(rows, range) and rows.step == 1:
            keep: Sequence[int] = self._keep[rows.start : rows.stop]
        else:
            keep = [self._keep[i] for i in rows]
        names = None if len(self._names) == len(self._block.names) else self._names
        return FeatureFrame(self._block, names, keep=keep)

    @cached_property
    def event_times_ns(self) -> list[int]:
        """Event time of each row, nanoseconds since 1970 in UTC; empty where none was given."""
        return self._kept(list(self._block.event_time_ns))

    def __len__(self) -> int:
        return len(self._keep)

    def __iter__(self) -> Iterator[FeatureRow]:
        names, partition = self._names, self.partition
        features = [_null_for_nan(self._column(place)) for place in self._places]
        values = zip(*features, strict=True) if features else iter([()] * len(self))
        times = self.event_times_ns or [0] * len(self)
        for symbol, time, price, row_values, row in zip(
            self._symbols(), times, self._prices(), values, self.rows, strict=True
        ):
            yield FeatureRow(
                symbol, time, price, dict(zip(names, row_values, strict=True)), partition, row
            )

    def __getitem__(self, row: int) -> FeatureRow:
        number = range(len(self))[row]
        return next(iter(self.part(number, number + 1)))

    def to_arrow(self) -> pa.Table:
        """Returns a pyarrow table; symbols are a dictionary of strings."""
        block = self._block
        # One symbol needs no index.
        places = block.symbol_index or [0] * (self._length if len(block.symbols) else 0)
        index = _integers(places, self._length, pa.int32())
        times = _integers(block.event_time_ns, self._length, pa.int64())
        columns = {
            SYMBOL: pa.DictionaryArray.from_arrays(index, pa.array(block.symbols, pa.utf8())),
            EVENT_TIME: times.cast(pa.timestamp("ns", "UTC")),
            PRICE: _floats(pa.py_buffer(array("d", block.prices)), self._length, 0)
            if block.prices
            else pa.nulls(self._length, pa.float64()),
        }
        values = pa.py_buffer(array("d", block.values))
        for name, place in zip(self._names, self._places, strict=True):
            columns[name] = _feature(values, self._length, place)
        table = pa.table(columns)
        if isinstance(self._keep, range):
            return table.slice(self._keep.start, len(self._keep))
        return table.take(pa.array(self._keep, pa.int64()))

    def __repr__(self) -> str:
        return frame_text(self, (SYMBOL, EVENT_TIME, PRICE, *self._names))

    def _symbols(self) -> list[str]:
        symbols, index = list(self._block.symbols), self._block.symbol_index
        if not index:
            return [symbols[0] if symbols else ""] * len(self)
        return self._kept([symbols[i] for i in index])

    def _prices(self) -> list[float]:
        return self._kept(list(self._block.prices)) or [float("nan")] * len(self)

    def _column(self, place: int) -> list[Any]:
        start = place * self._length
        return self._kept(self._block.values[start : start + self._length])

    def _kept(self, column: list[Any]) -> list[Any]:
        keep = self._keep
        if isinstance(keep, range):
            return column if len(keep) == len(column) else column[keep.start : keep.stop]
        return [column[i] for i in keep] if column else column

    def _check(self) -> None:
        block, length = self._block, self._length
        fits = (
            len(block.values) == length * len(block.names)
            and all(
                len(column) in (0, length)
                for column in (
                    block.symbol_index,
                    block.event_time_ns,
                    block.prices,
                    block.row_offset,
                )
            )
            and (not block.symbol_index or max(block.symbol_index) < len(block.symbols))
        )
        if not fits:
            raise BridgeError(
                f"expected columns of {length} rows, was a block whose columns differ "
                f"(set {block.feature_set}); bridge and client may be of different versions"
            )


def _null_for_nan(column: list[Any]) -> list[Any]:
    # A sum is quick and not a number if any of the values is not.
    if not isnan(sum(column)):
        return column
    return [None if isnan(value) else value for value in column]


def _integers(values: Sequence[int], length: int, kind: pa.DataType) -> pa.Array:
    return pa.array(list(values), kind) if values else pa.nulls(length, kind)


def _floats(values: pa.Buffer, length: int, place: int) -> pa.Array:
    return pa.Array.from_buffers(pa.float64(), length, [None, values], offset=place * length)


def _feature(values: pa.Buffer, length: int, place: int) -> pa.Array:
    column = _floats(values, length, place)
    return pc.if_else(pc.is_nan(column), None, column)
