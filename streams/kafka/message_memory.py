"""Fields of many polled messages at once, read where the client library keeps them.

A Python call per field and message takes longer than decoding the tick in it. A `Message` is a
plain struct, which compiled code reads without such calls. Whether it looks as expected is checked
once, with messages whose fields are known; where it does not (another build of the library or of
the interpreter), nothing is read here and messages are asked one by one.
"""

import ctypes
import struct
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, overload

import numpy as np
import structlog
from confluent_kafka import Message
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from schemas.ticks.compiled import PADDING, Int, Word, compiled
from schemas.ticks.decoder import JoinedValues

Longs = NDArray[np.int64]
Words = NDArray[np.uint64]

# Places in CPython's list and bytes objects, and in confluent_kafka's Message.
_TYPE = 8
_LIST_ITEMS = 24
_BYTES_LENGTH, _BYTES_DATA = 16, 32
_VALUE, _HEADERS, _UNREAD_HEADERS, _TIMESTAMP = 24, 40, 48, 88

# What `_read` returns where something is no message, or a value neither bytes nor missing.
_OTHER = -1

_log = structlog.get_logger(__name__)


class _Access:
    """What `prepare` has said to this process."""

    allowed = True


class MessageFields(JoinedValues):
    """What many messages hold.

    Attributes:
        timestamps_ms: Record timestamps in milliseconds since 1970 (UTC), int64 [n].
        any_headers: Whether one of them has headers.
    """

    def __init__(
        self, messages: Sequence[Message], timestamps_ms: Longs, values: Words, lengths: Longs
    ) -> None:
        self.timestamps_ms = timestamps_ms
        self.any_headers = False
        self._messages = messages
        starts = np.zeros(len(messages) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        buffer = np.empty(int(starts[-1]) + PADDING, np.uint8)
        buffer[starts[-1] :] = 0
        _gather(values, starts, buffer)
        super().__init__(buffer, starts)

    @overload
    def __getitem__(self, place: int) -> bytes | None: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes | None]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes | None] | None:
        """Returns values as the messages have them."""
        if isinstance(place, slice):
            return [message.value() for message in self._messages[place]]
        value: bytes | None = self._messages[place].value()
        return value


def read_fields(messages: list[Message]) -> MessageFields | None:
    """Returns what messages without errors hold; None where it cannot be read in this way."""
    if not _Access.allowed or not is_as_expected():
        return None
    count = len(messages)
    timestamps, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
    values, found = np.empty(count, np.uint64), np.zeros(1, np.int64)
    items = ctypes.c_uint64.from_address(id(messages) + _LIST_ITEMS).value
    if _read(items, count, id(Message), id(bytes), timestamps, values, lengths, found) == _OTHER:
        return None
    fields = MessageFields(messages, timestamps, values, lengths)
    fields.any_headers = bool(found[0])
    return fields


def prepare(*, allowed: bool) -> None:
    """Compiles or loads what `read_fields` uses.

    Args:
        allowed: Whether this process may read messages in this way.
    """
    _Access.allowed = allowed
    read_fields([Message(value=b"warm", timestamp=(1, 0))])


@cache
def is_as_expected() -> bool:
    """Whether messages, lists and bytes lie in memory as this module reads them."""
    expected = (b"value of a message", 0x1122334455667788)
    plain = Message(topic="topic", partition=7, value=expected[0], timestamp=(1, expected[1]))
    headed = Message(topic="topic", partition=7, value=None, headers=[("name", b"")])
    wanted = (
        (plain, _VALUE, id(expected[0])),
        (plain, _TIMESTAMP, expected[1]),
        (plain, _HEADERS, 0),
        (plain, _UNREAD_HEADERS, 0),
        (headed, _VALUE, 0),
        ([plain, headed], _LIST_ITEMS, None),
        (expected[0], _TYPE, id(bytes)),
        (plain, _TYPE, id(Message)),
        (expected[0], _BYTES_LENGTH, len(expected[0])),
    )
    good = (
        sys.implementation.name == "cpython"
        and ctypes.sizeof(ctypes.c_void_p) == ctypes.sizeof(ctypes.c_uint64)
        and Message.__basicsize__ >= _TIMESTAMP + ctypes.sizeof(ctypes.c_uint64)
        and bytes.__basicsize__ == _BYTES_DATA + 1
        and all(value is None or _word(owner, at) == value for owner, at, value in wanted)
        and (_word(headed, _HEADERS) or _word(headed, _UNREAD_HEADERS)) != 0
        and _items_are([plain, headed])
    )
    if not good:
        _log.info("messages are read one by one: this build of confluent-kafka is not known")
    return good


def _word(owner: object, at: int) -> int:
    """Returns eight bytes of an object, which is at least so large."""
    found: int = struct.unpack("=Q", ctypes.string_at(id(owner) + at, 8))[0]
    return found


def _items_are(items: list[Message]) -> bool:
    pointers = ctypes.string_at(_word(items, _LIST_ITEMS), 8 * len(items))
    return list(struct.unpack(f"={len(items)}Q", pointers)) == [id(item) for item in items]


@intrinsic  # type: ignore[misc, unused-ignore]
def _load(typingctx, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Returns the eight bytes at an address."""

    def codegen(_context, builder, _signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=8)

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[misc, unused-ignore]
def _copy(typingctx, array, index, address, count):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Copies bytes from an address into an array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(target.data, [args[1]])
        source = builder.inttoptr(args[2], ir.IntType(8).as_pointer())
        cgutils.raw_memcpy(builder, place, source, args[3], 1, align=1)
        return context.get_dummy_value()

    return types.none(array, types.int64, types.uint64, types.int64), codegen


@compiled
def _read(
    items: Word,
    count: Int,
    message_type: Word,
    bytes_type: Word,
    timestamps: Longs,
    values: Words,
    lengths: Longs,
    found: Longs,
) -> Int:
    """Reads messages.

    Args:
        items: Address of the addresses of the messages.
        count: How many there are.
        message_type: Address of their type.
        bytes_type: Address of the type of their values.
        timestamps: int64 [count], out.
        values: uint64 [count], out: where the bytes of the values are.
        lengths: int64 [count], out: how many there are.
        found: int64 [1], out: set to 1 where a message has headers.

    Returns:
        0, or `_OTHER`.
    """
    for k in range(count):
        message = _load(np.uint64(items) + np.uint64(8 * k))
        if _load(message + np.uint64(_TYPE)) != np.uint64(message_type):
            return _OTHER
        headers = _load(message + np.uint64(_HEADERS)) | _load(message + np.uint64(_UNREAD_HEADERS))
        if headers != np.uint64(0):
            found[0] = 1
        timestamps[k] = np.int64(_load(message + np.uint64(_TIMESTAMP)))
        value = _load(message + np.uint64(_VALUE))
        values[k] = value + np.uint64(_BYTES_DATA)
        lengths[k] = 0
        if value != np.uint64(0):
            if _load(value + np.uint64(_TYPE)) != np.uint64(bytes_type):
                return _OTHER
            lengths[k] = np.int64(_load(value + np.uint64(_BYTES_LENGTH)))
    return 0


@compiled
def _gather(values: Words, starts: Longs, buffer: NDArray[np.uint8]) -> Any:
    for k in range(len(values)):
        _copy(buffer, starts[k], values[k], starts[k + 1] - starts[k])
