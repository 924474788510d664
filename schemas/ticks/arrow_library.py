"""Arrow IPC streams of ticks: pyarrow reads and validates, a compiled loop appends the rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.ticks.arrow_bounds import check_declared_sizes
from schemas.ticks.compiled import PADDING
from schemas.ticks.library import MalformedMessageError, TickFields

_REQUIRED = ("symbol", "event_time_ns", "price")
OPTIONAL_FLOATS = ("size", "bid", "ask", "volume", "amount")
_ABSENT = (0.0, nan, nan, nan, nan)
_KNOWN = (*_REQUIRED, *OPTIONAL_FLOATS, "sequence")
_NO_FLOATS = np.empty(0, np.float64)
_NO_LONGS = np.empty(0, np.int64)
# Compiled code is specialised on read-only arrays, so that every input has the same type.
_NO_FLOATS.setflags(write=False)
_NO_LONGS.setflags(write=False)


@dataclass(frozen=True)
class ArrowRows:
    """One record batch as read-only arrays; optional columns have length 0 where absent.

    Attributes:
        index: int32, position of the row's symbol in the dictionary, -1 for null.
        offsets: int32, where the dictionary's strings begin and end in `text`.
        text: uint8 with `schemas.ticks.compiled.PADDING` bytes behind.
        event_time: int64, 0 for null.
        price: float64, NaN for null.
        floats: float64, `OPTIONAL_FLOATS` in order, NaN for null.
        sequence: int64, -1 for null.
        batch: The record batch.
    """

    index: NDArray[np.int32]
    offsets: NDArray[np.int32]
    text: NDArray[np.uint8]
    event_time: NDArray[np.int64]
    price: NDArray[np.float64]
    floats: tuple[NDArray[np.float64], ...]
    sequence: NDArray[np.int64]
    batch: Any

    def __len__(self) -> int:
        return len(self.index)

    def tick(self, row: int) -> TickFields | str:
        """Returns the fields of a row, or in words why it has none."""
        for name in _REQUIRED:
            column = self.batch.column(self.batch.schema.get_field_index(name))
            if not column[row].is_valid:
                return f"{name} is missing"
        sequence = int(self.sequence[row]) if len(self.sequence) else -1
        if sequence < -1:
            column = self.batch.column(self.batch.schema.get_field_index("sequence"))
            return f"sequence is {column[row].as_py()}, expected at least 0"
        size, bid, ask, volume, amount = (
            float(values[row]) + 0.0 if len(values) else absent
            for values, absent in zip(self.floats, _ABSENT, strict=True)
        )
        entry = self.index[row]
        if entry < 0:
            return "symbol is missing"
        symbol = bytes(self.text[self.offsets[entry] : self.offsets[entry + 1]]).decode("utf-8")
        time, price = int(self.event_time[row]), float(self.price[row])
        return TickFields(symbol, time, price, size, bid, ask, sequence, volume, amount)


def read_stream(message: memoryview) -> Iterator[ArrowRows]:
    """Yields the record batches of one message.

    Raises:
        MalformedMessageError: The stream is broken, too large or lacks a column.
    """
    check_declared_sizes(message)
    try:
        with pa.ipc.open_stream(pa.py_buffer(message)) as reader:
            _check_schema(reader.schema)
            for batch in reader:
                batch.validate(full=True)
                yield _rows(batch)
    except MalformedMessageError:
        raise
    except (pa.ArrowException, ValueError, OSError, OverflowError, TypeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise MalformedMessageError(f"broken Arrow stream: {detail}") from None


def _check_schema(schema: Any) -> None:
    for name in _KNOWN:
        count = len(schema.get_all_field_indices(name))
        if count > 1:
            raise MalformedMessageError(f"Arrow column {name} appears {count} times, expected once")
        if count == 0 and name in _REQUIRED:
            names = ", ".join(schema.names[:20])
            raise MalformedMessageError(
                f"Arrow column {name} is missing, expected {', '.join(_REQUIRED)}, was {names}"
            )


def _rows(batch: Any) -> ArrowRows:
    schema = batch.schema
    columns = {name: batch.column(i) for i, name in enumerate(schema.names) if name in _KNOWN}
    index, offsets, text = _symbols(columns["symbol"])
    sequence = columns.get("sequence")
    return ArrowRows(
        index,
        offsets,
        text,
        _times(columns["event_time_ns"]),
        _floats("price", columns["price"], nan),
        tuple(
            _floats(name, columns[name], absent) if name in columns else _NO_FLOATS
            for name, absent in zip(OPTIONAL_FLOATS, _ABSENT, strict=True)
        ),
        _NO_LONGS if sequence is None else _sequences(sequence),
        batch,
    )


def _plain(column: Any, dtype: Any) -> NDArray[Any]:
    """Values of a column without nulls, as a read-only view of Arrow's memory."""
    width = np.dtype(dtype).itemsize
    if len(column) == 0:
        return np.frombuffer(b"", dtype)
    array = np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * width)
    array.setflags(write=False)
    return array


def _filled(column: Any, dtype: Any, absent: Any) -> NDArray[Any]:
    """Values of a column, `absent` for nulls."""
    return _frozen(np.where(_valid(column), _plain(column, dtype), absent), dtype)


def _valid(column: Any) -> NDArray[np.bool_]:
    """Which values of a column with nulls are none.

    From the bits themselves: Arrow's own ways to NumPy import pandas, which takes a second.
    """
    bits = np.frombuffer(column.buffers()[0], np.uint8)
    flags = np.unpackbits(bits, count=column.offset + len(column), bitorder="little")
    return flags[column.offset :].astype(np.bool_)


def _frozen(values: Any, dtype: Any) -> NDArray[Any]:
    array = np.ascontiguousarray(values, dtype)
    if array is values:
        array = array.view()
    array.setflags(write=False)
    return array


def _floats(name: str, column: Any, absent: float) -> NDArray[np.float64]:
    kind = column.type
    if pa.types.is_decimal(kind):
        # Through Python, because float() of a decimal is correctly rounded.
        values = [absent if value is None else float(value) for value in column.to_pylist()]
        return _frozen(values, np.float64)
    if pa.types.is_null(kind):
        return _frozen(np.full(len(column), absent), np.float64)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise MalformedMessageError(f"Arrow column {name} is {kind}, expected numbers")
    if kind != pa.float64():
        column = column.cast(pa.float64(), safe=False)
    if column.null_count:
        return _filled(column, np.float64, absent)
    return _plain(column, np.float64)


def _times(column: Any) -> NDArray[np.int64]:
    kind = column.type
    if pa.types.is_timestamp(kind):
        if kind.unit != "ns":
            column = column.cast(pa.timestamp("ns", kind.tz))
    elif not pa.types.is_integer(kind):
        raise MalformedMessageError(
            f"Arrow column event_time_ns is {kind}, expected integers or timestamps"
        )
    column = column.view(pa.int64()) if kind.bit_width == 64 else column.cast(pa.int64())
    if column.null_count:
        return _filled(column, np.int64, 0)
    return _plain(column, np.int64)


def _sequences(column: Any) -> NDArray[np.int64]:
    if pa.types.is_null(column.type):
        return _frozen(np.full(len(column), -1), np.int64)
    if not pa.types.is_integer(column.type):
        raise MalformedMessageError(f"Arrow column sequence is {column.type}, expected integers")
    values = column.cast(pa.int64()) if column.type != pa.int64() else column
    if not values.null_count:
        plain = _plain(values, np.int64)
        # -1 stands for absent from here on; a negative number that was sent is refused.
        return _frozen(np.where(plain < 0, -2, plain), np.int64) if (plain < 0).any() else plain
    filled = _filled(values, np.int64, 0)
    valid = _valid(values)
    return _frozen(np.where(valid, np.where(filled < 0, -2, filled), -1), np.int64)


def _symbols(column: Any) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
    if not pa.types.is_dictionary(column.type):
        if not _is_text(column.type):
            raise MalformedMessageError(f"Arrow column symbol is {column.type}, expected strings")
        column = column.dictionary_encode()
    indices, names = column.indices, column.dictionary
    if not _is_text(names.type):
        raise MalformedMessageError(f"Arrow column symbol is {column.type}, expected strings")
    if names.type != pa.string():
        names = names.cast(pa.string())
    if names.null_count:
        # A dictionary may hold null itself; the null becomes a row without symbol.
        valid = _valid(names)
        positions = np.where(valid, np.arange(len(names)), -1)
    else:
        positions = None
    if indices.null_count:
        nulls = ~_valid(indices)
        index: NDArray[Any] = _filled(indices, indices.type.to_pandas_dtype(), 0)
    else:
        nulls, index = None, _plain(indices, indices.type.to_pandas_dtype())
    if index.dtype != np.int32:
        index = index.astype(np.int32)
    if positions is not None and len(index):
        index = positions[index].astype(np.int32)
    if nulls is not None:
        index = np.where(nulls, np.int32(-1), index)
    buffers = names.buffers()
    offsets = (
        np.frombuffer(buffers[1], np.int32, len(names) + 1, names.offset * 4)
        if len(names)
        else np.frombuffer(bytes(4), np.int32)
    )
    offsets.setflags(write=False)
    raw = memoryview(buffers[2])[: int(offsets[-1])] if buffers[2] is not None else b""
    text = np.frombuffer(bytes(raw) + bytes(PADDING), np.uint8)
    return _frozen(index, np.int32), offsets, text


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
