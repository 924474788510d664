"""One record of a features topic, decoded when somebody wants its rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from confluent_kafka import Message
from numpy.typing import NDArray

from schemas import headers
from schemas.errors import InvalidInputError
from schemas.features import EVENT_TIME, PRICE, SYMBOL, decode_block, decode_json_rows
from streams.kafka.feature_positions import first_row_of

Number = TypeVar("Number", np.int32, np.int64, np.float64)

_FIXED = frozenset({SYMBOL, EVENT_TIME, "event_time_ns", PRICE})
# What decoded rows take besides the values: measured with blocks of one row.
_RECORD_BYTES = 2048
_ARRAY_BYTES = 160


class Columns(NamedTuple):
    """Rows in columns.

    Attributes:
        names: Of the features.
        symbols: Distinct symbols.
        codes: Position in `symbols`, int32[rows].
        times: Nanoseconds since 1970-01-01 UTC, int64[rows].
        prices: float64[rows].
        values: float64[rows] of each feature, NaN where there is none.
    """

    names: tuple[str, ...]
    symbols: list[str]
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    prices: NDArray[np.float64]
    values: list[NDArray[np.float64]]


class FeatureRecord:
    """A record and the identities of its rows.

    Attributes:
        partition: Partition.
        offset: Offset.
        first_row: Identity of the first row.
        size: Bytes of the value.
        set_hash: Identity of the computation.
        source_first_offset: First source record; 0 where the header is missing.
        source_last_offset: Last source record; 0 where the header is missing.

    Raises:
        InvalidInputError: The record does not say its first row.
    """

    __slots__ = (
        "_code_of",
        "_columns",
        "_oldest_ns",
        "_order",
        "_rows",
        "_value",
        "first_row",
        "offset",
        "partition",
        "set_hash",
        "size",
        "source_first_offset",
        "source_last_offset",
    )

    def __init__(self, message: Message) -> None:
        found = dict(message.headers() or ())
        self._value: bytes = message.value() or b""
        self._columns: Columns | None = None
        self._code_of: dict[str, int] | None = None
        self._oldest_ns: int | None = None
        self._order: tuple[NDArray[np.intp], list[int]] | None = None
        self._rows = _number(found, headers.ROWS, -1)
        self.partition: int = message.partition()
        self.offset: int = message.offset()
        self.first_row = first_row_of(message)
        self.size = len(self._value)
        self.set_hash = (found.get(headers.SET_HASH) or b"").decode("ascii", "replace")
        self.source_first_offset = _number(found, headers.SOURCE_FIRST_OFFSET, 0)
        self.source_last_offset = _number(found, headers.SOURCE_LAST_OFFSET, 0)

    @property
    def rows(self) -> int:
        """Number of rows."""
        if self._rows < 0:
            self._rows = len(self.columns().codes)
        return self._rows

    @property
    def next_row(self) -> int:
        """Identity of the row after the last one."""
        return self.first_row + self.rows

    def columns(self) -> Columns:
        """Returns the rows; they are kept until `forget`.

        Raises:
            InvalidInputError: The value is no feature block.
        """
        if self._columns is None:
            self._columns = decode_columns(self._value)
        return self._columns

    @property
    def oldest_ns(self) -> int:
        """Oldest event time of the rows, ns since 1970 UTC."""
        if self._oldest_ns is None:
            times = self.columns().times
            self._oldest_ns = int(times.min()) if len(times) else 0
        return self._oldest_ns

    def codes_of(self, symbols: Collection[str]) -> list[int]:
        """Returns the codes of those symbols that the record has rows of."""
        if self._code_of is None:
            self._code_of = {name: code for code, name in enumerate(self.columns().symbols)}
        code_of = self._code_of
        if len(symbols) < len(code_of):
            return [code_of[symbol] for symbol in symbols if symbol in code_of]
        return [code for symbol, code in code_of.items() if symbol in symbols]

    def rows_of(self, codes: list[int]) -> NDArray[np.intp]:
        """Returns which rows have one of these codes, in order; made for a few codes."""
        if self._order is None:
            columns = self.columns()
            counts = np.bincount(columns.codes, minlength=len(columns.symbols))
            order = np.argsort(columns.codes, kind="stable")
            self._order = order, [0, *np.cumsum(counts).tolist()]
        order, ends = self._order
        parts = [order[ends[code] : ends[code + 1]] for code in codes]
        return parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))

    @property
    def decoded_bytes(self) -> int:
        """About what the decoded rows and the value take; 0 without decoded rows."""
        if self._columns is None:
            return 0
        arrays = len(self._columns.values) + 3
        return self.size + _RECORD_BYTES + arrays * _ARRAY_BYTES

    def forget(self) -> None:
        """Drops the decoded rows."""
        self._columns = self._code_of = self._order = None


def decode_columns(value: bytes) -> Columns:
    """Returns the rows of a block.

    Args:
        value: An Arrow IPC stream or a JSON array.

    Raises:
        InvalidInputError: It is neither, or lacks a column.
    """
    if value[:1] == b"[":
        return _from_json(value)
    batch = decode_block(value)
    names = tuple(name for name in batch.schema.names if name not in _FIXED)
    try:
        symbol = batch.column(SYMBOL)
        if not pa.types.is_dictionary(symbol.type):
            symbol = symbol.dictionary_encode()
        times = batch.column(EVENT_TIME).cast(pa.timestamp("ns", "UTC"))
        return Columns(
            names,
            symbol.dictionary.to_pylist(),
            _numbers(symbol.indices.cast(pa.int32()), np.int32),
            _numbers(times, np.int64),
            _floats(batch.column(PRICE)),
            [_floats(batch.column(name)) for name in names],
        )
    except (KeyError, AttributeError, TypeError, ValueError, pa.ArrowException) as error:
        raise InvalidInputError(
            f"expected columns {SYMBOL}, {EVENT_TIME}, {PRICE} and numbers, was "
            f"{', '.join(batch.schema.names)} ({error}); check who writes the topic"
        ) from error


def _numbers(column: Any, kind: type[Number]) -> NDArray[Number]:
    """Returns a column's memory; `to_numpy` would import pandas, which takes a second."""
    if not len(column):
        return np.empty(0, kind)
    start = column.offset * np.dtype(kind).itemsize
    return np.frombuffer(column.buffers()[1], kind, len(column), start)


def _floats(column: Any) -> NDArray[np.float64]:
    """Returns a column with NaN for null."""
    if not pa.types.is_float64(column.type):
        column = column.cast(pa.float64())
    values = _numbers(column, np.float64)
    if column.null_count == 0:
        return values
    missing = ~np.unpackbits(np.frombuffer(column.buffers()[0], np.uint8), bitorder="little").view(
        np.bool_
    )
    values = values.copy()
    values[missing[column.offset : column.offset + len(column)]] = np.nan
    return values


def _from_json(value: bytes) -> Columns:
    rows = decode_json_rows(value)
    names = tuple(name for name in (rows[0] if rows else ()) if name not in _FIXED)
    try:
        codes: dict[str, int] = {}
        index = [codes.setdefault(row[SYMBOL], len(codes)) for row in rows]
        return Columns(
            names,
            list(codes),
            np.array(index, np.int32),
            np.array([row["event_time_ns"] for row in rows], np.int64),
            np.array([row[PRICE] for row in rows], np.float64),
            [np.array([row.get(name) for row in rows], np.float64) for name in names],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"expected rows with {SYMBOL}, event_time_ns, {PRICE} and numbers, was otherwise "
            f"({error!r:.100}); check who writes the topic"
        ) from error


def _number(found: dict[str, bytes], name: str, absent: int) -> int:
    value = found.get(name)
    return int(value) if value is not None and value.isdigit() else absent
