"""The way of one reader from where it wants to begin to the present."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import structlog

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES, Delivery
from grpc_bridge.fanout.encode import EncodedBlock, pick_rows
from grpc_bridge.fanout.errors import StartDeletedError
from grpc_bridge.fanout.past_reader import Piece
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.start import Beginning
from grpc_bridge.fanout.store import Entry, Position, Stretch, entries_of
from grpc_bridge.fanout.turns import Turn
from grpc_bridge.fanout.wire import encode_token
from schemas.errors import InvalidInputError
from streams.kafka.tail import RecordsLostError

if TYPE_CHECKING:
    from grpc_bridge.fanout.feed import Feed

# Of values, read from the topic at a time.
_PIECE_BYTES = 1024**2
# Encoded in the event loop at a time, so that live readers do not wait for long.
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
        self._order = deque(self.offsets)  # the partition that was served first comes last then
        self._turn: Turn | None = None
        # Whether the store was looked at since the topic was read.
        self._followed = True

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
        self.end_turn()
        self._turn = await feed.turns.begin()
        while not self._ready:
            if feed.error is not None:
                raise feed.error
            missing = feed.store.missing(self.offsets, feed.offsets)
            if missing and self._followed:
                # First, so that a partition of the past does not wait until the others stand still.
                self._followed = False
                await self._meanwhile(self._read_piece())
                continue
            found = self._follow()
            self._followed = True
            if found.offsets != self.offsets:
                self._take(found)
                if not self._ready:
                    # Nothing of it is shown: others have their turn all the same.
                    await self._meanwhile(asyncio.sleep(0))
            elif self.at_present:
                return None
            elif not missing:
                # The feed has not come so far yet.
                await self._meanwhile(feed.caught_up(self.offsets))
        return self._ready.popleft()

    def end_turn(self) -> None:
        """Lets other readers go on: this one has what it took, or waits."""
        if self._turn is not None:
            self._turn.end()
            self._turn = None

    async def _meanwhile(self, wait: Awaitable[None]) -> None:
        """Waits while others have their turn, then for the next one."""
        self.end_turn()
        await wait
        self._turn = await self._feed.turns.begin()

    async def _read_piece(self) -> None:
        """Reads what follows and takes a part of it, since the store may drop it at any time."""
        feed = self._feed
        async with feed.store.reading:
            # Another reader may have read it meanwhile.
            missing = feed.store.missing(self.offsets, feed.offsets)
            if not missing:
                return
            try:
                piece = await feed.past.read(
                    feed.topic,
                    missing,
                    dict(feed.offsets),
                    _PIECE_BYTES,
                    lambda piece: _decoded(missing, piece),
                )
            except RecordsLostError as error:
                raise StartDeletedError(str(error)) from None
            for (partition, offset), entry in piece.items():
                feed.store.add(partition, offset, entry)
            self._take(self._follow(piece))

    def _follow(self, more: Mapping[Position, Entry] = MappingProxyType({})) -> Stretch:
        places = {partition: self.offsets[partition] for partition in self._order}
        return self._feed.store.follow(places, self._feed.offsets, _PART_BYTES, more)

    def _take(self, found: Stretch) -> None:
        self._encode(found.records)
        self.offsets.update(found.offsets)
        self._order.rotate(-1)

    def _encode(self, records: list[FeatureRecord]) -> None:
        blocks: list[EncodedBlock] = []
        size = 0
        for record in records:
            block = self._block(record)
            self.offsets[record.partition] = record.offset + 1
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

    def _block(self, record: FeatureRecord) -> EncodedBlock | None:
        store = self._feed.store
        try:
            seen = self._seen(record)
            pick = pick_rows(record, self._choice, seen)
        except InvalidInputError as error:
            _log.error("no feature block", error=str(error), offset=record.offset)
            return None
        store.used(record)
        return None if pick is None else store.block(record, self._choice, pick, seen)


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
