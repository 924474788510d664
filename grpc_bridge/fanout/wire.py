"""Protobuf wire format by hand, for the few messages of which very many are sent.

A block goes from columns to bytes by copies of whole columns; through message objects each number
would become a Python object first. Field numbers are those of `market.proto` and `realtime.proto`,
and the tests parse everything written here with the generated classes.

Reference: Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEN = 2  # wire type of bytes, strings, messages and packed numbers
_SEVEN_BITS = 128


def varint(value: int) -> bytes:
    """Returns a base-128 number, 0 <= value."""
    if value < _SEVEN_BITS:
        return bytes((value,))
    parts = bytearray()
    while value >= _SEVEN_BITS:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def frame(field: int, payload: bytes) -> bytes:
    """Returns a field of bytes, a string, a message or packed numbers."""
    return varint(field << 3 | _LEN) + varint(len(payload)) + payload


def frames(field: int, payloads: Iterable[bytes]) -> bytes:
    """Returns a repeated field."""
    head = varint(field << 3 | _LEN)
    return b"".join([part for one in payloads for part in (head, varint(len(one)), one)])


def packed_varints(values: NDArray[Any]) -> bytes:
    """Returns the payload of packed unsigned numbers below 2**32."""
    if not len(values):
        return b""
    top = int(values.max())
    if top < _SEVEN_BITS:
        return values.astype(np.uint8).tobytes()
    width = (top.bit_length() + 6) // 7
    numbers = values.astype(np.uint64)
    table = np.empty((len(numbers), width), np.uint8)
    used = np.empty((len(numbers), width), np.bool_)
    for k in range(width):
        rest = numbers >> np.uint64(7 * k)
        more = rest >= _SEVEN_BITS
        table[:, k] = (rest & np.uint64(0x7F)).astype(np.uint8) | more.astype(np.uint8) << 7
        used[:, k] = (rest > 0) if k else True
    return table[used].tobytes()


@functools.lru_cache(maxsize=1024)
def block_head(feature_set: str, set_hash: str, names: tuple[str, ...]) -> bytes:
    """Returns the fields of a FeatureBlock that stay the same: set, hash and names."""
    head = frame(1, feature_set.encode()) + frame(2, set_hash.encode())
    return head + frames(3, (name.encode() for name in names))


@functools.lru_cache(maxsize=100_000)
def _symbol(symbol: str) -> bytes:
    return frame(4, symbol.encode())


def encode_block(
    head: bytes,
    symbols: Sequence[str],
    codes: NDArray[Any],
    times: NDArray[np.int64],
    prices: NDArray[np.float64],
    values: Sequence[NDArray[np.float64]],
    *,
    partition: int,
    first_row: int,
    row_offsets: NDArray[Any] | None,
    source_first_offset: int,
    source_last_offset: int,
) -> bytes:
    """Returns a serialized FeatureBlock.

    Args:
        head: From `block_head`.
        symbols: Distinct symbols.
        codes: Position in `symbols`, [rows].
        times: Nanoseconds since 1970-01-01 UTC, int64[rows].
        prices: float64[rows].
        values: float64[rows] of each feature, NaN where there is none.
        partition: Of the rows.
        first_row: Identity from which `row_offsets` count.
        row_offsets: [rows]; None stands for 0, 1, 2...
        source_first_offset: First source record of the whole block.
        source_last_offset: Last source record of the whole block.
    """
    rows = len(codes)
    index = packed_varints(codes)
    column = varint(8 * rows)
    position = b"\x08" + varint(partition) + b"\x10" + varint(first_row)
    parts: list[Any] = [head, *map(_symbol, symbols)]
    parts += (b"\x2a", varint(len(index)), index)
    parts += (b"\x32", column, _little(times, "<i8"), b"\x3a", column, _little(prices, "<f8"))
    if values:
        parts += (b"\x42", varint(8 * rows * len(values)))
        parts += [_little(value, "<f8") for value in values]
    parts += (b"\x4a", varint(len(position)), position)
    if row_offsets is not None:
        parts.append(frame(10, packed_varints(row_offsets)))
    if source_first_offset:
        parts += (b"\x59", source_first_offset.to_bytes(8, "little", signed=True))
    if source_last_offset:
        parts += (b"\x61", source_last_offset.to_bytes(8, "little", signed=True))
    return b"".join(parts)


def _little(values: NDArray[Any], kind: str) -> NDArray[Any]:
    return np.ascontiguousarray(values, kind)


def encode_token(
    topic_id: bytes, offsets: Mapping[int, int], rows: Mapping[int, int | None]
) -> bytes:
    """Returns a serialized ResumeToken.

    Args:
        topic_id: Id of the topic.
        offsets: Next record by partition.
        rows: Next row by partition, where it is known.
    """
    parts = [frame(1, topic_id)]
    for partition in sorted(offsets):
        row = rows.get(partition)
        place = (b"\x08" + varint(partition)) if partition else b""
        if row is not None:
            place += b"\x10" + varint(row)
        place += b"\x18" + varint(offsets[partition])
        parts.append(frame(2, place))
    return b"".join(parts)
