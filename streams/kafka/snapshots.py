"""Envelope of a stored chunk of state, and what a commit says about itself.

A chunk is one record of ``<group>.state``: eight bytes of magic and version, a JSON header, the
task's payload, and a checksum over all of it. Every offset commit carries a `CommitMark` as its
metadata, so that position, row count and replay start change together or not at all.
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass, fields
from typing import Self

from streams.kafka.errors import StateNotRestorableError

FORMAT_VERSION = 1
_MAGIC = b"MSSTATE"
_PREFIX = struct.Struct("<7sBI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What must fit before a chunk may be used.

    Attributes:
        set_hash: Identity of the computation.
        partitions: Partition count of the source topic.
        partition: Source partition.
        chunk: Number of the chunk within the partition.
        origin: Where the state began, ``<partition>:<offset of its first message>``.
        next_offset: The chunk's state includes every message below this offset.
        next_row: Row identity that follows the rows of those messages.
    """

    set_hash: str
    partitions: int
    partition: int
    chunk: int
    origin: str
    next_offset: int
    next_row: int

    @property
    def key(self) -> bytes:
        """Record key, under which a newer chunk replaces an older one."""
        return f"{self.set_hash}/{self.partition}/{self.chunk}".encode()


def encode_chunk(header: ChunkHeader, payload: bytes) -> bytes:
    """Returns the record value of a chunk."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    body = _PREFIX.pack(_MAGIC, FORMAT_VERSION, len(text)) + text + payload
    return body + _CRC.pack(zlib.crc32(body))


def decode_chunk(value: bytes) -> tuple[ChunkHeader, bytes]:
    """Returns header and payload of a stored chunk.

    Raises:
        StateNotRestorableError: The record is damaged or of another version.
    """
    if len(value) < _PREFIX.size + _CRC.size:
        raise StateNotRestorableError(f"expected a state chunk, was {len(value)} bytes")
    magic, version, length = _PREFIX.unpack_from(value)
    if magic != _MAGIC:
        raise StateNotRestorableError("expected a state chunk, was something else")
    if version != FORMAT_VERSION:
        raise StateNotRestorableError(
            f"expected state of format {FORMAT_VERSION}, was format {version}"
        )
    body, crc = value[: -_CRC.size], _CRC.unpack_from(value, len(value) - _CRC.size)[0]
    if zlib.crc32(body) != crc:
        raise StateNotRestorableError("expected an intact state chunk, its checksum differs")
    start = _PREFIX.size
    header = ChunkHeader(**json.loads(body[start : start + length]))
    return header, body[start + length :]


@dataclass(frozen=True, slots=True)
class CommitMark:
    """Metadata of an offset commit.

    Attributes:
        row: Row identity of the next row.
        origin: Where the state began.
        resume: Offset from which the stored chunks must be replayed.
        resume_row: Row identity of the first row from there.
        chunks: How many chunks are stored.
        stored: Highest `next_offset` among them, 0 where there is none.
        set_hash: Identity of the computation.
        clock_ns: When the task last acted by the clock, which moves no offset; 0 is never since
            the partition was assigned.
    """

    row: int
    origin: str
    resume: int
    resume_row: int
    chunks: int
    stored: int
    set_hash: str
    clock_ns: int = 0

    def encode(self) -> str:
        """Returns the metadata text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | None) -> Self | None:
        """Returns the mark, or None where the commit was made by another program."""
        try:
            raw = json.loads(text or "")
            # Marks of versions without a clock lack its field.
            raw.setdefault("clock_ns", 0)
            return cls(**{field.name: raw[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
