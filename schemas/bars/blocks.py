"""Bars as record values: one Arrow IPC stream a block."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.arrow_values import column_values
from schemas.bars.columns import FLOAT_COLUMNS, NO_TRADES, BarColumns
from schemas.errors import InvalidInputError
from schemas.features.blocks import EVENT_TIME, MAX_BLOCK_BYTES, SYMBOL
from schemas.symbols import MAX_SYMBOL_BYTES

_TIME = pa.timestamp("ns", "UTC")
_SCHEMA = pa.schema(
    [
        pa.field(SYMBOL, pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field(EVENT_TIME, _TIME, nullable=False),
        pa.field("start_time", _TIME, nullable=False),
        pa.field("end_time", _TIME, nullable=False),
        *(pa.field(name, pa.float64(), nullable=name == "amount") for name in FLOAT_COLUMNS),
        pa.field("trades", pa.int64()),
        pa.field("revision", pa.int32(), nullable=False),
    ]
)
# Metadata of a stream: fixed part, and per column its schema entry, nodes and padding.
_STREAM_BYTES = 4096 + 512 * len(_SCHEMA)
# Index, three times, six numbers, trades, revision, validity of two columns; and a dictionary
# entry if no other row has its symbol.
_ROW_BITS = 8 * (4 + 3 * 8 + 6 * 8 + 8 + 4) + 2 + 8 * (MAX_SYMBOL_BYTES + 4)


def bars_schema() -> Any:
    """Returns the Arrow schema of a block; `event_time` is `end_time`."""
    return _SCHEMA


def rows_per_bars_block() -> int:
    """Returns how many bars fit into 768 KiB whatever their symbols are."""
    return (MAX_BLOCK_BYTES - _STREAM_BYTES) * 8 // _ROW_BITS


def encode_bars(names: Sequence[str], bars: BarColumns) -> bytes:
    """Returns the bars as one Arrow IPC stream of one record batch.

    Args:
        names: Symbols by code; only those in use get into the block's own dictionary.
        bars: At most `rows_per_bars_block()` bars.
    """
    used, index = _local(bars.code, len(names))
    amount_valid, trades_valid = ~np.isnan(bars.amount), bars.trades >= 0
    end_time = _array(_TIME, bars.end_time, np.int64)
    columns = [
        pa.DictionaryArray.from_arrays(
            _array(pa.int32(), index, np.int32),
            pa.array([names[code] for code in used.tolist()], pa.string()),
            safe=False,
        ),
        end_time,
        _array(_TIME, bars.start_time, np.int64),
        end_time,
        *(
            _array(
                pa.float64(),
                getattr(bars, name),
                np.float64,
                amount_valid if name == "amount" else None,
            )
            for name in FLOAT_COLUMNS
        ),
        _array(pa.int64(), bars.trades, np.int64, trades_valid),
        _array(pa.int32(), bars.revision, np.int32),
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
    return bytes(sink.getvalue().to_pybytes())


def decode_bars(value: bytes) -> tuple[list[str], BarColumns]:
    """Returns the symbols of a block and its bars; the arrays are read-only views of `value`.

    Args:
        value: One Arrow IPC stream with at least symbol, start_time, end_time and the prices.

    Raises:
        InvalidInputError: The value is not a block of bars.
    """
    try:
        with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
            batches = list(reader)
            schema = reader.schema
        if len(batches) == 1:
            return _columns(batches[0])
        rows = pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
        return _columns((rows.to_batches() or [_empty(schema)])[0])
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise InvalidInputError(
            f"expected a block of bars (Arrow IPC stream), was {len(value)} other bytes "
            f"({' '.join(str(error).split())[:200]}); check the topic"
        ) from error


def _local(codes: NDArray[np.int32], count: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Returns the distinct codes and, for each row, the place of its code among them."""
    if count > 8 * len(codes):
        used, index = np.unique(codes, return_inverse=True)
        return used, index.astype(np.int32)
    present = np.zeros(count, np.bool_)
    present[codes] = True
    place = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present), place[codes]


def _array(
    kind: Any, values: NDArray[Any], dtype: Any, valid: NDArray[np.bool_] | None = None
) -> Any:
    """Wraps an array; `valid` says which values are not null."""
    bits = None
    if valid is not None and not valid.all():
        bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(values, dtype))
    return pa.Array.from_buffers(kind, len(values), [bits, data])


def _empty(schema: Any) -> Any:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _columns(batch: Any) -> tuple[list[str], BarColumns]:
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    n = batch.num_rows
    symbol = columns[SYMBOL]
    if not pa.types.is_dictionary(symbol.type):
        symbol = symbol.dictionary_encode()
    names = symbol.dictionary.to_pylist()
    code = column_values(symbol.indices, pa.int32(), np.int32, None, SYMBOL)
    if n and (code.min() < 0 or code.max() >= len(names)):
        raise ValueError("column symbol has indices outside its dictionary")
    end_time = columns["end_time"] if "end_time" in columns else columns[EVENT_TIME]
    numbers = {
        name: column_values(columns[name], pa.float64(), np.float64, np.nan, name)
        for name in FLOAT_COLUMNS
        if name != "amount"
    }
    return names, BarColumns(
        code,
        column_values(columns["start_time"], _TIME, np.int64, None, "start_time"),
        column_values(end_time, _TIME, np.int64, None, "end_time"),
        **numbers,
        amount=column_values(columns["amount"], pa.float64(), np.float64, np.nan, "amount")
        if "amount" in columns
        else np.full(n, np.nan),
        trades=column_values(columns["trades"], pa.int64(), np.int64, NO_TRADES, "trades")
        if "trades" in columns
        else np.full(n, NO_TRADES, np.int64),
        revision=column_values(columns["revision"], pa.int32(), np.int32, 0, "revision")
        if "revision" in columns
        else np.zeros(n, np.int32),
    )
