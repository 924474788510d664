"""Remembers what the streams of a producer look like, so that compiled code can read the next one.

A producer writes every message with the same schema, and its library lays out the metadata of every
batch the same way: between two messages only row counts, body sizes, null counts and buffer
positions differ. Once pyarrow has accepted a message, its metadata is kept as a template in which
those places are free. A message that equals a template elsewhere is one whose metadata pyarrow has
checked before; the free places are checked by `schemas.ticks.arrow_fast` for each message.
"""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.ticks.arrow_bounds import field_position, locate_batch

MAX_SHAPES = 8
# A schema of all nine fields takes about 1 KiB with its batch metadata.
TEMPLATE_BYTES = 4096

# Places in a row of `info`.
(
    USED,
    SCHEMA_END,
    DICTIONARY_END,
    BATCH_END,
    DICTIONARY_BODY,
    DICTIONARY_ROWS,
    DICTIONARY_NODES,
    DICTIONARY_BUFFERS,
    BATCH_BODY,
    BATCH_ROWS,
    BATCH_NODES,
    BATCH_BUFFERS,
    NODE_COUNT,
    BUFFER_COUNT,
) = range(14)
# From here on: index of the values buffer of each of `FIELDS`, -1 where absent.
FIRST_FIELD = 14
FIELDS = ("symbol", "event_time_ns", "price", "size", "bid", "ask", "volume", "amount", "sequence")
INFO_WIDTH = FIRST_FIELD + len(FIELDS)

_CONTINUATION = b"\xff\xff\xff\xff"
_SIZE = struct.Struct("<i")
_COUNT = struct.Struct("<I")
_TIMES = (pa.int64(), *(pa.timestamp("ns", zone) for zone in (None, "UTC")))


class _NotOrdinaryError(Exception):
    """The stream is of a kind that compiled code does not read."""


class ArrowShapes:
    """Templates of the last `MAX_SHAPES` kinds of stream.

    Attributes:
        templates: uint8[MAX_SHAPES, TEMPLATE_BYTES], the messages' prefixes and metadata in a row.
        masks: uint8 of the same shape, 0 where a byte is free and 255 elsewhere.
        info: int64[MAX_SHAPES, INFO_WIDTH], where things are in the template.
    """

    def __init__(self) -> None:
        self.templates: NDArray[np.uint8] = np.zeros((MAX_SHAPES, TEMPLATE_BYTES), np.uint8)
        self.masks: NDArray[np.uint8] = np.zeros((MAX_SHAPES, TEMPLATE_BYTES), np.uint8)
        self.info: NDArray[np.int64] = np.zeros((MAX_SHAPES, INFO_WIDTH), np.int64)
        self._known: dict[bytes, int] = {}
        self._next = 0

    def learn(self, stream: memoryview, schema: Any) -> None:
        """Remembers a stream that pyarrow has accepted, if compiled code can read its kind.

        Args:
            stream: The message.
            schema: Its schema.
        """
        try:
            template, mask, info = _shape(stream, schema)
        except (_NotOrdinaryError, struct.error, IndexError):
            return
        key = bytes(template & mask) + bytes(mask)
        if key in self._known:
            return
        slot = self._next
        self._next = (slot + 1) % MAX_SHAPES
        self._known = {k: place for k, place in self._known.items() if place != slot}
        self._known[key] = slot
        self.templates[slot, : len(template)] = template & mask
        self.masks[slot] = 0
        self.masks[slot, : len(mask)] = mask
        self.info[slot] = info


def _shape(
    stream: memoryview, schema: Any
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    info = np.full(INFO_WIDTH, -1, np.int64)
    dictionary = pa.types.is_dictionary(schema.field("symbol").type)
    info[NODE_COUNT], info[BUFFER_COUNT] = _place_fields(schema, info)
    info[USED] = 1
    schema_end = _metadata_end(stream, 0)
    parts, free = [bytes(stream[:schema_end])], []
    info[SCHEMA_END] = info[DICTIONARY_END] = schema_end
    position = schema_end
    if dictionary:
        end = _metadata_end(stream, position)
        places = _places(stream, position, end, schema_end, nodes=1, buffers=3)
        info[[DICTIONARY_BODY, DICTIONARY_ROWS, DICTIONARY_NODES, DICTIONARY_BUFFERS]] = places
        free += _free(places, nodes=1, buffers=3)
        parts.append(bytes(stream[position:end]))
        info[DICTIONARY_END] = schema_end + end - position
        position = end + struct.unpack_from("<q", parts[-1], places[0] - schema_end)[0]
    end = _metadata_end(stream, position)
    nodes, buffers = int(info[NODE_COUNT]), int(info[BUFFER_COUNT])
    places = _places(stream, position, end, int(info[DICTIONARY_END]), nodes, buffers)
    info[[BATCH_BODY, BATCH_ROWS, BATCH_NODES, BATCH_BUFFERS]] = places
    free += _free(places, nodes, buffers)
    parts.append(bytes(stream[position:end]))
    template = np.frombuffer(b"".join(parts), np.uint8)
    info[BATCH_END] = len(template)
    # Compiled code compares eight bytes at once.
    if len(template) + 8 > TEMPLATE_BYTES:
        raise _NotOrdinaryError
    mask = np.full(len(template), 255, np.uint8)
    for first, length in free:
        mask[first : first + length] = 0
    return template, mask, info


def _place_fields(schema: Any, info: NDArray[np.int64]) -> tuple[int, int]:
    """Fills in the values buffer of each field; returns how many nodes and buffers a batch has."""
    buffer = 0
    for field in schema:
        if field.name not in FIELDS:
            raise _NotOrdinaryError
        kind = field.type
        fits = {
            "symbol": kind in (pa.dictionary(pa.int32(), pa.string()), pa.string()),
            "event_time_ns": kind in _TIMES,
            "sequence": kind == pa.int64(),
        }.get(field.name, kind == pa.float64())
        if not fits:
            raise _NotOrdinaryError
        info[FIRST_FIELD + FIELDS.index(field.name)] = buffer + 1
        buffer += 3 if kind == pa.string() else 2
    return len(schema), buffer


def _metadata_end(stream: memoryview, position: int) -> int:
    if bytes(stream[position : position + 4]) != _CONTINUATION:
        raise _NotOrdinaryError
    size = _SIZE.unpack_from(stream, position + 4)[0]
    end = position + 8 + int(size)
    if size <= 0 or end > len(stream):
        raise _NotOrdinaryError
    return end


def _places(
    stream: memoryview, position: int, end: int, at: int, nodes: int, buffers: int
) -> list[int]:
    """Where body size, rows, nodes and buffers stand in a template in which the part is at `at`."""
    metadata = stream[position + 8 : end]
    batch, body_at = locate_batch(metadata)
    rows_at = field_position(metadata, batch, 0)
    vectors = []
    for index, count in ((1, nodes), (2, buffers)):
        place = field_position(metadata, batch, index)
        if not place:
            raise _NotOrdinaryError
        vector = place + _COUNT.unpack_from(metadata, place)[0]
        if _COUNT.unpack_from(metadata, vector)[0] != count:
            raise _NotOrdinaryError
        vectors.append(vector + 4)
    if not rows_at or not body_at or field_position(metadata, batch, 3):
        raise _NotOrdinaryError
    return [at + 8 + place for place in (body_at, rows_at, *vectors)]


def _free(places: list[int], nodes: int, buffers: int) -> list[tuple[int, int]]:
    return list(zip(places, (8, 8, 16 * nodes, 16 * buffers), strict=True))
