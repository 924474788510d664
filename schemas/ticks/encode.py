"""Columns of ticks to message values, for producers. Needs neither numba nor numpy.

All three functions take parallel sequences (lists, `array.array`, numpy arrays, pyarrow arrays'
``to_pylist()``). An optional column may be None (absent everywhere) or hold None or NaN (absent in
that row). Values are not validated here; the reader's rules are in `schemas.ticks.rules`.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from math import isnan
from typing import Any, TypeAlias

import orjson
import pyarrow as pa

Floats: TypeAlias = Sequence[float]
OptionalFloats: TypeAlias = Sequence[float | None] | None
OptionalInts: TypeAlias = Sequence[int | None] | None

_REQUIRED_FIELDS = struct.Struct("<BqBd")
_REQUIRED_AND_SIZE = struct.Struct("<BqBdBd")
_TAG_TIME, _TAG_PRICE, _TAG_SIZE, _TAG_SEQUENCE = 0x11, 0x19, 0x21, 0x38
_TAGGED_DOUBLE = struct.Struct("<Bd")
_TAG_BID, _TAG_ASK, _TAG_VOLUME, _TAG_AMOUNT = 0x29, 0x31, 0x41, 0x49
_TICKS_TAG = b"\x0a"


@lru_cache(maxsize=100_000)
def _symbol_field(symbol: str) -> bytes:
    raw = symbol.encode()
    return b"\x0a" + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_LENGTH_PREFIX = [_TICKS_TAG + _varint(length) for length in range(256)]


def _present(value: float | None) -> bool:
    return value is not None and not isnan(value)


def encode_batch(
    symbols: Sequence[str],
    event_times_ns: Sequence[int],
    prices: Floats,
    sizes: OptionalFloats = None,
    *,
    bids: OptionalFloats = None,
    asks: OptionalFloats = None,
    sequences: OptionalInts = None,
    volumes: OptionalFloats = None,
    amounts: OptionalFloats = None,
) -> bytes:
    """Returns a protobuf `TickBatch`."""
    parts: list[bytes] = []
    prefix, symbol_field = _LENGTH_PREFIX, _symbol_field
    optional = [
        (tag, column) for tag, column in ((_TAG_BID, bids), (_TAG_ASK, asks)) if column is not None
    ]
    trailing = [
        (tag, column)
        for tag, column in ((_TAG_VOLUME, volumes), (_TAG_AMOUNT, amounts))
        if column is not None
    ]
    plain = not optional and not trailing and sequences is None
    pack, pack_size = _REQUIRED_FIELDS.pack, _REQUIRED_AND_SIZE.pack
    for i, symbol in enumerate(symbols):
        name = symbol_field(symbol)
        size = sizes[i] if sizes is not None else None
        if size:
            body = pack_size(_TAG_TIME, event_times_ns[i], _TAG_PRICE, prices[i], _TAG_SIZE, size)
        else:
            body = pack(_TAG_TIME, event_times_ns[i], _TAG_PRICE, prices[i])
        if not plain:
            body += _optional_fields(i, optional, sequences, trailing)
        length = len(name) + len(body)
        parts += (
            prefix[length] if length < len(prefix) else _TICKS_TAG + _varint(length),
            name,
            body,
        )
    return b"".join(parts)


def _optional_fields(
    i: int,
    before: list[tuple[int, Sequence[float | None]]],
    sequences: OptionalInts,
    after: list[tuple[int, Sequence[float | None]]],
) -> bytes:
    out = b""
    for tag, column in before:
        value = column[i]
        if value is not None and _present(value):
            out += _TAGGED_DOUBLE.pack(tag, value)
    if sequences is not None:
        sequence = sequences[i]
        if sequence is not None and _present(sequence):
            # A negative number takes ten bytes, as protobuf's int64 does.
            out += bytes((_TAG_SEQUENCE,)) + _varint(int(sequence) & 0xFFFFFFFFFFFFFFFF)
    for tag, column in after:
        value = column[i]
        if value is not None and _present(value):
            out += _TAGGED_DOUBLE.pack(tag, value)
    return out


def encode_json(
    symbols: Sequence[str],
    event_times_ns: Sequence[int],
    prices: Floats,
    sizes: OptionalFloats = None,
    *,
    bids: OptionalFloats = None,
    asks: OptionalFloats = None,
    sequences: OptionalInts = None,
    volumes: OptionalFloats = None,
    amounts: OptionalFloats = None,
) -> bytes:
    """Returns a JSON object for one tick, a JSON array for several."""
    optional: list[tuple[str, Sequence[Any]]] = [
        (name, column)
        for name, column in (
            ("size", sizes),
            ("bid", bids),
            ("ask", asks),
            ("sequence", sequences),
            ("volume", volumes),
            ("amount", amounts),
        )
        if column is not None
    ]
    ticks: list[dict[str, Any]] = []
    for i, symbol in enumerate(symbols):
        tick: dict[str, Any] = {
            "symbol": symbol,
            "event_time_ns": event_times_ns[i],
            "price": prices[i],
        }
        for name, column in optional:
            if _present(column[i]):
                tick[name] = column[i]
        ticks.append(tick)
    value: Any = ticks[0] if len(ticks) == 1 else ticks
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def encode_arrow(
    symbols: Sequence[str],
    event_times_ns: Sequence[int],
    prices: Floats,
    sizes: OptionalFloats = None,
    *,
    bids: OptionalFloats = None,
    asks: OptionalFloats = None,
    sequences: OptionalInts = None,
    volumes: OptionalFloats = None,
    amounts: OptionalFloats = None,
) -> bytes:
    """Returns an Arrow IPC stream of one record batch, symbols as a dictionary."""
    index: dict[str, int] = {}
    codes = [index.setdefault(symbol, len(index)) for symbol in symbols]
    columns: list[Any] = [
        pa.DictionaryArray.from_arrays(
            pa.array(codes, pa.int32()), pa.array(list(index), pa.string())
        ),
        _column(event_times_ns, pa.int64()),
        _column(prices, pa.float64()),
    ]
    names = ["symbol", "event_time_ns", "price"]
    for name, values, kind in (
        ("size", sizes, pa.float64()),
        ("bid", bids, pa.float64()),
        ("ask", asks, pa.float64()),
        ("sequence", sequences, pa.int64()),
        ("volume", volumes, pa.float64()),
        ("amount", amounts, pa.float64()),
    ):
        if values is not None:
            names.append(name)
            columns.append(_column(values, kind))
    batch = pa.RecordBatch.from_arrays(columns, names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _column(values: Sequence[Any], kind: Any) -> Any:
    if isinstance(values, list | tuple) or hasattr(values, "__array__"):
        return pa.array(values, kind)
    return pa.array(list(values), kind)
