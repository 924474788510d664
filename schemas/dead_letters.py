"""Dead letters: the original bytes of a refused record, and in headers why and from where."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas import headers as names
from schemas.errors import InvalidInputError
from schemas.topics import DEAD_LETTER_EXTRA_BYTES, MAX_MESSAGE_BYTES

# A reason is for people; a parser's message may quote a whole megabyte of input.
MAX_REASON_BYTES = 1024
# Row lists longer than this are written as a bitmap, which MAX_ROWS_PER_MESSAGE keeps below 44 KiB.
_MAX_ROW_LIST_BYTES = 4096
_BITMAP = "bitmap:"
# Room for key, record framing and the fixed headers.
_FRAMING_BYTES = 4096


@dataclass(frozen=True)
class DeadLetter:
    """A record for a dead-letter topic.

    Attributes:
        key: Key of the refused record.
        value: Its value; only the first 64 KiB where the whole would not fit.
        headers: The refused record's headers, then those of this module.
    """

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def build_dead_letter(
    key: bytes | None,
    value: bytes | None,
    *,
    reason: str,
    kind: str | None = None,
    topic: str,
    partition: int,
    offset: int,
    group: str,
    rows: Sequence[int] | None = None,
    headers: Iterable[tuple[str, bytes | None]] = (),
    max_bytes: int = MAX_MESSAGE_BYTES + DEAD_LETTER_EXTRA_BYTES,
) -> DeadLetter:
    """Builds the dead letter of one record.

    Args:
        key: The record's key.
        value: The record's value.
        reason: What was wrong, in words.
        kind: As of `schemas.processing.Refusal`; None leaves it open.
        topic: Where the record stands.
        partition: Where the record stands.
        offset: Where the record stands.
        group: Who refused it.
        rows: Positions of the refused ticks within the record; None refuses the whole record.
        headers: The record's own headers; kept, except those that this function writes.
        max_bytes: Size limit of the dead-letter topic. Beyond it the value is cut to its first
            64 KiB and the headers give its size and SHA-256; the whole is at the source offset.
    """
    own: list[tuple[str, bytes]] = [
        (names.REASON, reason.encode("utf-8", "backslashreplace")[:MAX_REASON_BYTES]),
        (names.SOURCE_TOPIC, topic.encode()),
        (names.SOURCE_PARTITION, b"%d" % partition),
        (names.SOURCE_OFFSET, b"%d" % offset),
        (names.GROUP, group.encode()),
    ]
    if kind is not None:
        own.append((names.KIND, kind.encode()))
    if rows is not None:
        own.append((names.ROWS, format_rows(rows).encode()))
    written = {name for name, _ in own}
    written |= {names.KIND, names.ROWS, names.ORIGINAL_BYTES, names.SHA256}
    kept = [(name, content or b"") for name, content in headers if name not in written]
    size = _FRAMING_BYTES + len(key or b"") + len(value or b"") + _size(own) + _size(kept)
    if size > max_bytes and value is not None:
        own.append((names.ORIGINAL_BYTES, b"%d" % len(value)))
        own.append((names.SHA256, hashlib.sha256(value).hexdigest().encode()))
        value = value[:DEAD_LETTER_EXTRA_BYTES]
        kept = [(name, content) for name, content in kept if name == names.CONTENT_TYPE]
    return DeadLetter(key, value, kept + own)


def format_rows(rows: Sequence[int]) -> str:
    """Returns row positions as ranges (``0-4,9``), or as a bitmap where that is shorter."""
    parts: list[str] = []
    ordered = sorted(set(rows))
    i = 0
    while i < len(ordered):
        j = i
        while j + 1 < len(ordered) and ordered[j + 1] == ordered[j] + 1:
            j += 1
        parts.append(str(ordered[i]) if i == j else f"{ordered[i]}-{ordered[j]}")
        i = j + 1
    text = ",".join(parts)
    if len(text) <= _MAX_ROW_LIST_BYTES:
        return text
    bits = bytearray(ordered[-1] // 8 + 1)
    for row in ordered:
        bits[row >> 3] |= 1 << (row & 7)
    bitmap = _BITMAP + base64.b64encode(bits).decode()
    return min(text, bitmap, key=len)


def parse_rows(text: str) -> frozenset[int]:
    """Returns the row positions that `format_rows` wrote.

    Raises:
        InvalidInputError: The text is neither ranges nor a bitmap.
    """
    try:
        if text.startswith(_BITMAP):
            bits = base64.b64decode(text.removeprefix(_BITMAP), validate=True)
            return frozenset(
                8 * i + bit for i, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1
            )
        rows: set[int] = set()
        for part in text.split(",") if text else ():
            first, dash, last = part.partition("-")
            rows.update(range(int(first), int(last if dash else first) + 1))
        return frozenset(rows)
    except ValueError as error:
        raise InvalidInputError(
            f"expected rows such as 0-4,9, was {text[:80]!r} (header rows); correct the header"
        ) from error


def _size(pairs: Iterable[tuple[str, bytes]]) -> int:
    return sum(len(name) + len(content) + 10 for name, content in pairs)
