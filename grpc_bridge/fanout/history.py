"""The way of one reader from where it wants to begin to the present."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import structlog

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES, Delivery
from grpc_bridge.fanout.encode import EncodedBlock, pick_rows
from grpc_bridge.fanout.errors import StartDeletedError
from grpc_bridge.fanout.past_reader import Piece
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.start import Beginning
from grpc_bridge.fanout.store import Entry, Position, entries_of
from grpc_bridge.fanout.turns import Turn
from grpc_bridge.fanout.wire import encode_token
from schemas.errors import InvalidInputError
from streams.kafka.tail import RecordsLostError

if TYPE_CHECKING:
    from grpc_bridge.fanout.feed import Feed

# Of values, read from the topic at a time.
_PIECE_BYTES = 1024**2
# Encoded in the event loop at a time, so that live readers wait for a millisecond at most.
_PART_BYTES = 128 * 1024

_log = structlog.get_logger(__name__)


class History:
    """Reads from a beginning until it has caught up with its feed.

    Args:
        feed: The present.
        choice: What to show.
        beginning: Where to begin.

    Attributes:
        offsets: Next record by partition.
        rows: Next row by partition, where it is known.
    """

    def __init__(self, feed: Feed, choice: Choice, beginning: Beginning) -> None:
        self.offsets = dict(beginning.offsets)
        self.rows = dict(beginning.rows)
        self._feed = feed
        self._choice = choice
        self._fresh = set(beginning.rows)  # partitions whose first record is still to come
        self._ready: deque[Delivery] = deque()
        # The last piece that this reader read: the store may have dropped it before its turn comes.
        self._own: dict[Position, Entry] = {}
        self._turn: Turn | None = None

    @property
    def token(self) -> bytes:
        """Serialized ResumeToken of what was read."""
        return encode_token(self._feed.topic_id, self.offsets, self.rows)

    @property
    def at_present(self) -> bool:
        """Whether everything that the feed has read up to this moment was taken."""
        return not self._ready and self.offsets == self._feed.offsets

    async def next(self) -> Delivery | None:
        """Returns what comes next; None in the very moment when the present is reached.

        Raises:
            StartDeletedError: Rows were deleted before they could be read.
            UnavailableError: The broker does not answer.
            StreamEndedError: The feed has ended.
        """
        feed = self._feed
        await self._wait_for_turn()
        while not self._ready:
            if feed.error is not None:
                raise feed.error
            found = feed.store.follow(self.offsets, feed.offsets, _PART_BYTES, self._own)
            if found.offsets != self.offsets:
                self._encode(found.records)
                self.offsets.update(found.offsets)
                if not self._ready:
                    await asyncio.sleep(0)  # others have their turn, also where nothing is shown
            elif feed.store.missing(self.offsets, feed.offsets):
                self.end_turn()
                await self._read_piece()
                await self._wait_for_turn()
            elif self.at_present:
                return None
            else:
                # The token is of a bridge that is ahead.
                self.end_turn()
                await feed.caught_up(self.offsets)
                await self._wait_for_turn()
        return self._ready.popleft()

    def end_turn(self) -> None:
        """Lets other readers go on: this one has what it took, or waits."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    async def _wait_for_turn(self) -> None:
        self.end_turn()
        self._turn = await self._feed.turns.begin()

    async def _read_piece(self) -> None:
        feed = self._feed
        async with feed.store.reading:
            # Another reader may have read it meanwhile.
            missing = feed.store.missing(self.offsets, feed.offsets)
            if not missing:
                return
            try:
                self._own = await feed.past.read(
                    feed.topic,
                    missing,
                    dict(feed.offsets),
                    _PIECE_BYTES,
                    lambda piece: _decoded(missing, piece),
                )
            except RecordsLostError as error:
                raise StartDeletedError(str(error)) from None
            for (partition, offset), entry in self._own.items():
                feed.store.add(partition, offset, entry)

    def _encode(self, records: list[FeatureRecord]) -> None:
        blocks: list[EncodedBlock] = []
        size = 0
        for record in records:
            block = self._block(record, self._seen(record))
            self.offsets[record.partition] = record.offset + 1
            self._feed.store.used(record)
            if block is not None:
                blocks.append(block)
                size += len(block.data)
            if size >= MAX_RESPONSE_BYTES:
                self._add(blocks)
                blocks, size = [], 0
        if blocks:
            self._add(blocks)

    def _add(self, blocks: list[EncodedBlock]) -> None:
        self._ready.append(Delivery(blocks, self.token, sum([block.rows for block in blocks])))

    def _seen(self, record: FeatureRecord) -> int:
        """How many rows of a record were read before; notes that all are now."""
        partition, first = record.partition, record.first_row
        expected = self.rows.get(partition)
        if expected is not None and first > expected:
            gap = f"expected row {expected} of partition {partition} in {self._feed.topic}, was "
            gap += f"{first}; the rows between were deleted, start from 'earliest'"
            if partition in self._fresh:
                raise StartDeletedError(gap)
            _log.error("row gap", error=gap)
        self._fresh.discard(partition)
        expected = first if expected is None else expected
        self.rows[partition] = max(expected, record.next_row)
        return max(0, expected - first)

    def _block(self, record: FeatureRecord, seen: int) -> EncodedBlock | None:
        pick = pick_rows(record, self._choice, seen)
        return None if pick is None else self._feed.store.block(record, self._choice, pick, seen)


def _decoded(offsets: dict[int, int], piece: Piece) -> dict[Position, Entry]:
    """Returns what a piece says, decoded; runs in a thread."""
    records: list[tuple[int, int, FeatureRecord | None]] = []
    for message in piece.messages:
        record: FeatureRecord | None = None
        try:
            record = FeatureRecord(message)
            record.columns()
        except InvalidInputError as error:
            record = None
            _log.error("no feature block", error=str(error), offset=message.offset())
        records.append((message.partition(), message.offset(), record))
    return entries_of(offsets, records, piece.positions)
