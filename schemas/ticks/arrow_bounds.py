"""Checks what an Arrow IPC stream declares before a library allocates memory for it.

Reads just enough of the FlatBuffers metadata: rows of every batch, and of compressed buffers the
length that stands before the compressed bytes. Layout: Arrow columnar format, "IPC streaming".
"""

import struct

from schemas.ticks.library import MalformedMessageError
from schemas.ticks.rules import MAX_DECODED_BYTES, MAX_ROWS_PER_MESSAGE

_CONTINUATION = 0xFFFFFFFF
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
# A stream of one Kafka message has a schema, some dictionaries and usually one batch.
_MAX_PARTS = 1024

_PREFIX = struct.Struct("<II")
_INT32 = struct.Struct("<i")
_UINT16 = struct.Struct("<H")
_UINT32 = struct.Struct("<I")
_INT64 = struct.Struct("<q")
_PAIR = struct.Struct("<qq")


def check_declared_sizes(stream: memoryview) -> None:
    """Refuses a stream that declares too many rows, too many bytes or too many parts.

    Raises:
        MalformedMessageError: With the reason in words.
    """
    try:
        _check(stream)
    except (struct.error, IndexError):
        raise MalformedMessageError("broken Arrow stream: metadata is truncated") from None


def _check(stream: memoryview) -> None:
    position, rows, decoded, parts = 0, 0, 0, 0
    while position + 4 <= len(stream):
        if _UINT32.unpack_from(stream, position)[0] != _CONTINUATION:
            raise MalformedMessageError("broken Arrow stream: no message where one was expected")
        size = _PREFIX.unpack_from(stream, position)[1]
        if size == 0:
            return
        parts += 1
        if parts > _MAX_PARTS:
            raise MalformedMessageError(
                f"Arrow stream has more than {_MAX_PARTS} parts, expected few batches"
            )
        metadata = stream[position + 8 : position + 8 + size]
        kind = _header_kind(metadata)
        batch, length_at = locate_batch(metadata)
        body_size = _INT64.unpack_from(metadata, length_at)[0] if length_at else 0
        body = position + 8 + size
        if body_size < 0 or body + body_size > len(stream):
            raise MalformedMessageError("broken Arrow stream: truncated")
        if batch:
            rows_at = field_position(metadata, batch, 0)
            declared = _INT64.unpack_from(metadata, rows_at)[0] if rows_at else 0
            rows += declared if kind == _RECORD_BATCH else 0
            if not 0 <= declared <= MAX_ROWS_PER_MESSAGE or rows > MAX_ROWS_PER_MESSAGE:
                raise MalformedMessageError(
                    f"Arrow stream declares {max(rows, declared)} rows in {len(stream)} bytes, "
                    f"expected at most {MAX_ROWS_PER_MESSAGE}"
                )
            if field_position(metadata, batch, 3):
                decoded += _declared_bytes(stream, metadata, batch, body, body_size)
                if decoded > MAX_DECODED_BYTES:
                    raise MalformedMessageError(
                        f"Arrow stream declares {decoded} bytes after decompression in "
                        f"{len(stream)} bytes, expected at most {MAX_DECODED_BYTES}"
                    )
        position = body + body_size


def _header_kind(metadata: memoryview) -> int:
    place = field_position(metadata, _UINT32.unpack_from(metadata, 0)[0], 1)
    return metadata[place] if place else 0


def locate_batch(metadata: memoryview) -> tuple[int, int]:
    """Returns where a message's RecordBatch table and its body size are; 0 where there is none.

    Raises:
        IndexError: The metadata is broken; `struct.error` likewise.
    """
    message = _UINT32.unpack_from(metadata, 0)[0]
    kind, header_at = _header_kind(metadata), field_position(metadata, message, 2)
    batch = 0
    if kind in (_DICTIONARY_BATCH, _RECORD_BATCH) and header_at:
        batch = header_at + _UINT32.unpack_from(metadata, header_at)[0]
        if kind == _DICTIONARY_BATCH:
            data_at = field_position(metadata, batch, 1)
            batch = data_at + _UINT32.unpack_from(metadata, data_at)[0]
    return batch, field_position(metadata, message, 3)


def _declared_bytes(
    stream: memoryview, metadata: memoryview, batch: int, body: int, body_size: int
) -> int:
    vector_at = field_position(metadata, batch, 2)
    if not vector_at:
        return 0
    vector = vector_at + _UINT32.unpack_from(metadata, vector_at)[0]
    total = 0
    for i in range(_UINT32.unpack_from(metadata, vector)[0]):
        offset, length = _PAIR.unpack_from(metadata, vector + 4 + 16 * i)
        if length >= 8:
            if not 0 <= offset <= body_size - length:
                raise MalformedMessageError("broken Arrow stream: buffer outside its batch")
            total += max(0, _INT64.unpack_from(stream, body + offset)[0])
    return total


def field_position(metadata: memoryview, table: int, index: int) -> int:
    """Returns the position of a FlatBuffers table's field, or 0 where it is absent.

    Raises:
        IndexError: The table points outside the metadata; `struct.error` likewise.
    """
    vtable = table - _INT32.unpack_from(metadata, table)[0]
    if vtable < 0:
        raise IndexError
    slot = 4 + 2 * index
    if slot >= _UINT16.unpack_from(metadata, vtable)[0]:
        return 0
    offset = _UINT16.unpack_from(metadata, vtable + slot)[0]
    return table + offset if offset else 0
