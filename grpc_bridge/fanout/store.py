"""The records of a topic that were read lately, and the blocks that were made of them.

Readers that come back all at once, as after a restart of the bridge, want the same records and
mostly the same blocks. Here each record is read and decoded about once for all of them, and
encoded once for each choice, so that they catch up however many they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.encode import EncodedBlock, Pick, encode_record
from grpc_bridge.fanout.recent import Recent
from grpc_bridge.fanout.record import FeatureRecord

RECORD_BYTES = 32 * 1024**2
# Of decoded rows: decoding a record costs ten times what encoding it does.
_DECODED_BYTES = 16 * 1024**2
_BLOCK_BYTES = 16 * 1024**2
# What an entry takes besides the value of its record.
_ENTRY_BYTES = 700
# What follows positions is given out by size; to show a record costs as much as this at least.
_LEAST_RECORD_BYTES = 4096
# A block of more symbols is made for each reader: to find it the symbols would have to be compared.
_MOST_SYMBOLS = 64
# Readings of the topic at a time; whoever waits finds what the others have read.
_READINGS = 2

# Partition, and an offset from which on the next record is asked for.
Position = tuple[int, int]
# A record, or an offset: there is no record of rows before it.
Entry = FeatureRecord | int


class Stretch(NamedTuple):
    """What follows some positions.

    Attributes:
        records: In log order within a partition.
        offsets: Position behind them, by partition.
    """

    records: list[FeatureRecord]
    offsets: dict[int, int]


class RecordStore:
    """Records by position. Belongs to the event loop.

    Args:
        feature_set: Name of the set.
        max_bytes: Of values of records to keep.

    Attributes:
        reading: Held by whoever reads the topic for what is not here.
    """

    def __init__(self, feature_set: str, max_bytes: int) -> None:
        self.reading = asyncio.Semaphore(_READINGS)
        self._set = feature_set
        self._entries: Recent[Position, Entry] = Recent(max_bytes)
        self._decoded: Recent[FeatureRecord, FeatureRecord] = Recent(
            _DECODED_BYTES, FeatureRecord.forget
        )
        self._blocks: Recent[tuple[int, int, int, Choice], EncodedBlock] = Recent(_BLOCK_BYTES)

    def add(self, partition: int, offset: int, entry: Entry) -> None:
        """Adds what follows an offset."""
        if (partition, offset) not in self._entries:
            size = 0 if isinstance(entry, int) else entry.size
            self._entries.put((partition, offset), entry, size + _ENTRY_BYTES)

    def follow(
        self,
        offsets: Mapping[int, int],
        ends: Mapping[int, int],
        max_bytes: int,
        more: Mapping[Position, Entry],
    ) -> Stretch:
        """Returns what is known to follow some positions.

        Args:
            offsets: Where to begin, by partition; the first one is served first.
            ends: Where to stop.
            max_bytes: Of values, about.
            more: Entries that the store may not have.
        """
        found = Stretch([], dict(offsets))
        at, size = found.offsets, 0
        for partition in offsets:
            end = ends.get(partition, 0)
            while at[partition] < end and size < max_bytes:
                position = partition, at[partition]
                entry = self._entries.get(position)
                if entry is None and (entry := more.get(position)) is None:
                    break
                if isinstance(entry, int):
                    at[partition] = entry
                    size += _ENTRY_BYTES
                else:
                    found.records.append(entry)
                    size += max(entry.size, _LEAST_RECORD_BYTES)
                    at[partition] = entry.offset + 1
        return found

    def missing(self, offsets: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
        """Returns the positions before the ends of which it is not known what follows."""
        return {
            partition: offset
            for partition, offset in offsets.items()
            if offset < ends.get(partition, 0) and (partition, offset) not in self._entries
        }

    def used(self, record: FeatureRecord) -> None:
        """Keeps the decoded rows of a record, if any, until enough others were used after it."""
        if record.decoded_bytes:
            self._decoded.put(record, record, record.decoded_bytes)

    def block(self, record: FeatureRecord, choice: Choice, pick: Pick, seen: int) -> EncodedBlock:
        """Returns the block of a choice, the same for all who want the same.

        Args:
            record: The record.
            choice: What is shown of it; its symbols do not change.
            pick: Rows of that choice, from `pick_rows`.
            seen: As given to `pick_rows`.
        """
        since_ns = choice.since_ns
        many = choice.symbols is not None and len(choice.symbols) > _MOST_SYMBOLS
        if many or (since_ns is not None and record.oldest_ns < since_ns):
            return encode_record(self._set, record, choice, pick)
        # No row is older, so the bound makes no difference.
        alike = choice if since_ns is None else Choice(choice.symbols, choice.names)
        key = record.partition, record.offset, seen, alike
        block = self._blocks.get(key)
        if block is None:
            block = encode_record(self._set, record, alike, pick)
            self._blocks.put(key, block, len(block.data) + _ENTRY_BYTES)
        return block


def entries_of(
    offsets: Mapping[int, int],
    records: Iterable[tuple[int, int, FeatureRecord | None]],
    ends: Mapping[int, int],
) -> dict[Position, Entry]:
    """Returns what follows each position of a reading.

    Args:
        offsets: Where it began, by partition.
        records: Partition, offset and record; None for one without rows.
        ends: Where it ended, by partition.
    """
    entries: dict[Position, Entry] = {}
    at = dict(offsets)
    for partition, offset, record in records:
        entries[partition, at[partition]] = offset + 1 if record is None else record
        at[partition] = offset + 1
    for partition, end in ends.items():
        if at[partition] < end:
            entries[partition, at[partition]] = end
    return entries
