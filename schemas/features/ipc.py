"""Arrow IPC messages by template: the metadata is made once by pyarrow, later only patched.

A feature block always has the same schema, so from block to block only numbers change: row and
null counts, and where the buffers are. Building the message anew costs pyarrow about 80 µs, which
is most of the work for the small blocks of a quiet stream; patching costs a few.

Layout: Arrow columnar format, "Encapsulated message format" and `Message.fbs`.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]

_CONTINUATION = b"\xff\xff\xff\xff"
END_OF_STREAM = np.frombuffer(_CONTINUATION + bytes(4), np.uint8)
# Continuation mark and length of the metadata, before the metadata.
_PREFIX_BYTES = 8
# Every buffer of a body begins at a multiple of this.
_ALIGNMENT = 8
# Field numbers of the flatbuffer tables in `Message.fbs`.
_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 2, 3
_DICTIONARY_DATA = 1
_BATCH_LENGTH, _BATCH_NODES, _BATCH_BUFFERS = 0, 1, 2


class MessageTemplate:
    """Metadata of one Arrow message whose counts and buffers can be set.

    Args:
        message: Prefix and metadata of the message as pyarrow wrote it.
        is_dictionary: Whether it is a dictionary batch.
    """

    def __init__(self, message: bytes, *, is_dictionary: bool) -> None:
        self._bytes: Bytes = np.frombuffer(message, np.uint8).copy()
        self._longs = self._bytes.view("<i8")
        root = _PREFIX_BYTES + self._u32(_PREFIX_BYTES)
        batch = self._child(root, _MESSAGE_HEADER)
        if is_dictionary:
            batch = self._child(batch, _DICTIONARY_DATA)
        self._body_length = self._field(root, _MESSAGE_BODY_LENGTH) // 8
        self._length = self._field(batch, _BATCH_LENGTH) // 8
        self._nodes = self._structs(self._child(batch, _BATCH_NODES))
        self._buffers = self._structs(self._child(batch, _BATCH_BUFFERS))

    def fill(self, rows: int, nulls: Sequence[int], sizes: Sequence[int]) -> tuple[Bytes, int]:
        """Sets the counts.

        Args:
            rows: Rows of the batch.
            nulls: Null count of each column.
            sizes: Bytes of each buffer, in order.

        Returns:
            Prefix and metadata, a view valid until the next call, and the length of the body. The
            offset of each buffer in the body is in `offsets`.
        """
        padded = -(-np.array(sizes, np.int64) // _ALIGNMENT) * _ALIGNMENT
        ends = np.cumsum(padded)
        self.offsets = ends - padded
        body = int(ends[-1])
        self._longs[self._length] = rows
        self._longs[self._body_length] = body
        self._nodes[:, 0] = rows
        self._nodes[:, 1] = nulls
        self._buffers[:, 0] = self.offsets
        self._buffers[:, 1] = sizes
        return self._bytes, body

    def _u32(self, position: int) -> int:
        return int(self._bytes[position : position + 4].view("<u4")[0])

    def _field(self, table: int, number: int) -> int:
        """Returns the position of a table's field."""
        vtable = table - int(self._bytes[table : table + 4].view("<i4")[0])
        slot = vtable + 4 + 2 * number
        return table + int(self._bytes[slot : slot + 2].view("<u2")[0])

    def _child(self, table: int, number: int) -> int:
        """Returns the position of what a field refers to."""
        field = self._field(table, number)
        return field + self._u32(field)

    def _structs(self, vector: int) -> NDArray[np.int64]:
        """Returns a vector of structs of two longs as an array, int64 [n, 2]."""
        count, first = self._u32(vector), (vector + 4) // 8
        return self._longs[first : first + 2 * count].reshape(count, 2)


def split_stream(schema: Any) -> tuple[Bytes, MessageTemplate, MessageTemplate]:
    """Returns schema message, dictionary template and batch template of a feature block.

    Args:
        schema: Its first column is a dictionary of strings, the only one in the schema.
    """
    symbol = pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), 1, [None, pa.py_buffer(bytes(4))]),
        pa.Array.from_buffers(
            pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"A")]
        ),
        safe=False,
    )
    columns = [
        pa.Array.from_buffers(field.type, 1, [None, pa.py_buffer(bytes(8))])
        for field in list(schema)[1:]
    ]
    batch = pa.RecordBatch.from_arrays([symbol, *columns], schema=schema)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(batch)
    reader = pa.ipc.MessageReader.open_stream(sink.getvalue())
    heads = []
    for _ in range(3):
        message = reader.read_next_message()
        metadata = message.metadata.to_pybytes()
        length = len(metadata).to_bytes(4, "little")
        heads.append(_CONTINUATION + length + metadata)
    return (
        np.frombuffer(heads[0], np.uint8),
        MessageTemplate(heads[1], is_dictionary=True),
        MessageTemplate(heads[2], is_dictionary=False),
    )
