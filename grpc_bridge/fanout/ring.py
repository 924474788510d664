"""The newest records of a topic, raw: where a reader of the past meets the present."""

from __future__ import annotations

from collections.abc import Mapping

from grpc_bridge.fanout.record import FeatureRecord

# Dropping from the front of a list is worth it only for many at once.
_TRIM = 1024
# Of values whose rows stay decoded. To decode a record costs ten times what it costs to encode it,
# and readers that come back all at once want the same records one after the other.
_DECODED_BYTES = 4 * 1024**2


class Ring:
    """Records in the order in which they were read, up to a number of bytes.

    Args:
        starts: Offset of each partition from which on records will be added.
        max_bytes: Of values; the newest record is always kept.
    """

    def __init__(self, starts: Mapping[int, int], max_bytes: int) -> None:
        self._starts = dict(starts)
        self._max_bytes = max_bytes
        self._bytes = 0
        self._decoded: dict[FeatureRecord, None] = {}
        self._decoded_bytes = 0
        self._records: list[tuple[FeatureRecord, int]] = []
        self._first = 0  # index into _records of the oldest that is kept
        self._dropped = 0  # records cut off the front of _records

    @property
    def begin(self) -> int:
        """Number of the oldest record; records are numbered as they are added."""
        return self._dropped + self._first

    @property
    def end(self) -> int:
        """Number of the next record."""
        return self._dropped + len(self._records)

    def add(self, record: FeatureRecord, seen: int) -> None:
        """Adds a record.

        Args:
            record: The record.
            seen: So many rows at its beginning were in the topic before.
        """
        self._records.append((record, seen))
        self._bytes += record.size
        last = len(self._records) - 1
        while self._bytes > self._max_bytes and self._first < last:
            oldest, _ = self._records[self._first]
            self._bytes -= oldest.size
            self._starts[oldest.partition] = oldest.offset + 1
            self._first += 1
        if self._first >= _TRIM:
            del self._records[: self._first]
            self._dropped += self._first
            self._first = 0

    def used(self, record: FeatureRecord) -> None:
        """Keeps a record's decoded rows until enough others were used after it."""
        if record in self._decoded:
            del self._decoded[record]
        else:
            self._decoded_bytes += record.size
        self._decoded[record] = None
        while self._decoded_bytes > _DECODED_BYTES and len(self._decoded) > 1:
            oldest = next(iter(self._decoded))
            del self._decoded[oldest]
            self._decoded_bytes -= oldest.size
            oldest.forget()

    def covers(self, offsets: Mapping[int, int]) -> bool:
        """Whether everything from these offsets on is in the ring."""
        return all(offsets[p] >= start for p, start in self._starts.items())

    def part(self, number: int, max_bytes: int) -> list[tuple[FeatureRecord, int]]:
        """Returns records from a number on, with their rows seen, up to about so many bytes."""
        found, size = [], 0
        for i in range(max(number, self.begin) - self._dropped, len(self._records)):
            found.append(self._records[i])
            size += self._records[i][0].size
            if size >= max_bytes:
                break
        return found
