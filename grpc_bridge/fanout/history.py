"""The way of one reader from where it wants to begin to the present."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES, Delivery
from grpc_bridge.fanout.encode import EncodedBlock, encode_record, pick_rows
from grpc_bridge.fanout.errors import StartDeletedError
from grpc_bridge.fanout.past_reader import Piece
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.start import Beginning
from grpc_bridge.fanout.wire import encode_token
from schemas.errors import InvalidInputError
from streams.kafka.tail import RecordsLostError

if TYPE_CHECKING:
    from grpc_bridge.fanout.feed import Feed

# Of values, read from the topic at a time.
_PIECE_BYTES = 1024**2
# Encoded in the event loop at a time, so that live readers wait for a millisecond at most.
_RING_BYTES = 128 * 1024
_OUTSIDE = -1

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
        self._number = _OUTSIDE  # of the next record in the ring

    @property
    def token(self) -> bytes:
        """Serialized ResumeToken of what was read."""
        return encode_token(self._feed.topic_id, self.offsets, self.rows)

    @property
    def at_present(self) -> bool:
        """Whether everything that was read up to this moment has been taken."""
        return (
            not self._ready
            and self._number == self._feed.ring.end
            and self._feed.is_at(self.offsets)
        )

    async def next(self) -> Delivery | None:
        """Returns what comes next; None in the very moment when the present is reached.

        Raises:
            StartDeletedError: Rows were deleted before they could be read.
            UnavailableError: The broker does not answer.
        """
        while not self._ready:
            if self._feed.error is not None:
                raise self._feed.error
            ring = self._feed.ring
            if self._number < ring.begin:
                self._number = ring.begin if ring.covers(self.offsets) else _OUTSIDE
            if self._number == _OUTSIDE:
                await self._read_piece()
            elif self._number < ring.end:
                part = ring.part(self._number, _RING_BYTES)
                self._number += len(part)
                self._encode(
                    [pair for pair in part if pair[0].offset >= self.offsets[pair[0].partition]],
                    ring.used,
                )
            elif self._feed.is_at(self.offsets):
                return None
            else:
                # The past was read beyond the present, or the token is of a bridge that is ahead.
                await self._feed.caught_up(self.offsets)
        return self._ready.popleft()

    async def _read_piece(self) -> None:
        feed = self._feed
        try:
            await feed.past.read(
                feed.topic, self.offsets, dict(feed.offsets), _PIECE_BYTES, self._digest
            )
        except RecordsLostError as error:
            raise StartDeletedError(str(error)) from None

    def _digest(self, piece: Piece) -> None:
        """Runs in a thread while nothing else touches this object."""
        records = []
        for message in piece.messages:
            try:
                record = FeatureRecord(message)
                record.columns()
            except InvalidInputError as error:
                _log.error("no feature block", error=str(error), offset=message.offset())
                continue
            records.append((record, 0))
        self._encode(records, FeatureRecord.forget)
        self.offsets.update(piece.positions)

    def _encode(
        self,
        records: list[tuple[FeatureRecord, int]],
        done: Callable[[FeatureRecord], None],
    ) -> None:
        blocks: list[EncodedBlock] = []
        size = 0
        for record, seen in records:
            data = self._block(record, max(seen, self._seen(record)))
            self.offsets[record.partition] = record.offset + 1
            done(record)
            if data is not None:
                blocks.append(data)
                size += len(data.data)
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
        if pick is None:
            return None
        rows = pick.stop - pick.start if isinstance(pick, slice) else len(pick)
        source = (record.source_first_offset, record.source_last_offset)
        data = encode_record(self._feed.name, record, self._choice, pick)
        return EncodedBlock(record.partition, rows, *source, data)
