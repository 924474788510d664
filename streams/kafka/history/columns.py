"""Records of blocks as columns, whatever is in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.arrow_values import column_values
from schemas.errors import InvalidInputError
from schemas.features.blocks import (
    EVENT_TIME,
    EVENT_TIME_NS,
    SYMBOL,
    decode_json_rows,
)

START_TIME = "start_time"
END_TIME = "end_time"
# What is kept of a bar's start: its distance from the end, which is mostly the same for all.
LENGTH = "length_ns"
REVISION = "revision"
_TIME = pa.timestamp("ns", "UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())
# Chunks shorter than this are joined, since each costs a call per column.
_SHORT_ROWS = 2048


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one schema in the order of the log.

    Attributes:
        names: Symbols.
        codes: int32 [n], indices into `names`.
        times: int64 [n], event times, nanoseconds since 1970-01-01 UTC.
        lengths: Rows of each piece of the columns.
        columns: Name to pieces of float64, together [n]; NaN is null. A piece that holds one value
            only may be that value, once.
    """

    names: list[str]
    codes: NDArray[np.int32]
    times: NDArray[np.int64]
    lengths: list[int]
    columns: dict[str, list[NDArray[np.float64]]]


def parse_record(value: bytes) -> list[Any]:
    """Returns the record batches of a block with columns symbol and event_time.

    Raises:
        InvalidInputError: The value is something else.
    """
    try:
        if value[:1] == b"[":
            return _json_batches(value)
        with pa.ipc.open_stream(value) as reader:
            return [batch for batch in reader if _is_block(batch.schema) and len(batch)]
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise InvalidInputError(
            "expected a block of rows with symbol and event_time, was "
            f"{len(value)} other bytes ({' '.join(str(error).split())[:200]})"
        ) from error


def _is_block(schema: Any) -> bool:
    if SYMBOL in schema.names and EVENT_TIME in schema.names:
        return True
    raise ValueError(f"columns {', '.join(schema.names[:20])}")


def _json_batches(value: bytes) -> list[Any]:
    table = pa.Table.from_pylist(decode_json_rows(value))
    if table.num_rows == 0:
        return []
    time = table.column(EVENT_TIME_NS).cast(pa.int64()).cast(_TIME)
    table = table.drop_columns(EVENT_TIME_NS).append_column(EVENT_TIME, time)
    return list(table.combine_chunks().to_batches())


def rows_of(batches: Sequence[Any]) -> Rows:
    """Joins record batches, none of them empty, of the same column names.

    Raises:
        InvalidInputError: A column is not what its name says.
    """
    try:
        return _rows_of(batches)
    except (pa.ArrowException, ValueError) as error:
        raise InvalidInputError(
            "expected blocks with symbol, event_time and numbers, was something else "
            f"({' '.join(str(error).split())[:200]})"
        ) from error


def _rows_of(batches: Sequence[Any]) -> Rows:
    schema = batches[0].schema
    table = pa.Table.from_batches([_same(batch, schema) for batch in batches], schema)
    symbol = table.column(SYMBOL)
    if symbol.type != _TEXT:
        table = table.set_column(schema.get_field_index(SYMBOL), SYMBOL, _as_dictionary(symbol))
    table = table.unify_dictionaries()
    if len(batches) * _SHORT_ROWS > table.num_rows:
        table = table.combine_chunks()
    symbols = table.column(SYMBOL)
    codes = [column_values(c.indices, pa.int32(), np.int32, None, SYMBOL) for c in symbols.chunks]
    names = symbols.chunk(0).dictionary.to_pylist()
    times = _pieces(table, EVENT_TIME, _TIME, np.int64, None)
    columns: dict[str, list[NDArray[np.float64]]] = {}
    for field in table.schema:
        if field.name in (SYMBOL, EVENT_TIME, END_TIME):
            continue
        if field.name == START_TIME:
            starts = _pieces(table, START_TIME, _TIME, np.int64, None)
            columns[LENGTH] = [
                _folded((e - s).astype(np.float64)) for e, s in zip(times, starts, strict=True)
            ]
        elif _is_number(field.type):
            columns[field.name] = [_floats(chunk) for chunk in table.column(field.name).chunks]
    code = np.concatenate(codes)
    if code.min() < 0 or code.max() >= len(names):
        raise ValueError("symbol indices outside their dictionary")
    if None in names:
        raise ValueError("symbol is null")
    return Rows(names, code, np.concatenate(times), list(map(len, times)), columns)


def _same(batch: Any, schema: Any) -> Any:
    return batch if batch.schema == schema else batch.cast(schema)


def _as_dictionary(symbol: Any) -> Any:
    chunks = []
    for chunk in symbol.chunks:
        plain = chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
        chunks.append(plain.cast(pa.string()).dictionary_encode())
    return pa.chunked_array(chunks, _TEXT)


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _pieces(table: Any, name: str, kind: Any, dtype: Any, absent: Any) -> list[NDArray[Any]]:
    return [column_values(c, kind, dtype, absent, name) for c in table.column(name).chunks]


def _floats(chunk: Any) -> NDArray[np.float64]:
    """Returns a chunk as float64; a single NaN where all of it is null."""
    if chunk.null_count == len(chunk):
        return np.full(1, np.nan)
    return _folded(column_values(chunk, pa.float64(), np.float64, np.nan, ""))


def _folded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns one value for a piece that holds nothing else."""
    bits = values.view(np.int64)
    return values[:1] if bits[0] == bits[-1] and (bits == bits[0]).all() else values
