"""Columns into protobuf messages without an object per value.

A message's encoding may be put together from parts, so a packed field is its tag, its length and
the array's own memory. Reading needs nothing of the kind: `numpy.array` of a repeated field is as
fast as a copy.
"""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

_LENGTH_DELIMITED = 2


def packed_field(number: int, values: NDArray[Any]) -> list[bytes]:
    """Returns the parts of a packed repeated field of fixed width.

    Args:
        number: The field's number.
        values: float64 for ``double``, int64 for ``sfixed64``, float32 for ``float``.
    """
    return bytes_field(
        number, [values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()]
    )


def bytes_field(number: int, parts: Sequence[bytes]) -> list[bytes]:
    """Returns the parts of a field of bytes, of an embedded message or of packed values.

    Args:
        number: The field's number.
        parts: Its content, to be joined.
    """
    length = sum(map(len, parts))
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(length), *parts]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
