"""A feed without a broker: a log in memory, of which some was read."""

import asyncio
from collections.abc import Callable, Mapping

import orjson

from grpc_bridge.fanout.past_reader import Piece
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.store import RecordStore
from grpc_bridge.fanout.turns import Turn, Turns


class FeatureMessage:
    """A message of a features topic."""

    def __init__(
        self, partition: int, offset: int, value: bytes, *, first_row: int, rows: int
    ) -> None:
        self._place, self._value = (partition, offset), value
        self._headers = [("first_row", b"%d" % first_row), ("rows", b"%d" % rows)]

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def topic(self) -> str:
        return "features.set"

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


def message(partition: int, offset: int, *, padding: int = 0) -> FeatureMessage:
    """Returns the message of one row, whose number is its offset."""
    row = {"symbol": "IBM", "event_time_ns": offset, "price": 1.0, "sma_3": 2.0}
    value = orjson.dumps([row]) + b" " * padding
    return FeatureMessage(partition, offset, value, first_row=offset, rows=1)


class CountedTurns(Turns):
    """Turns, counted."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0

    async def begin(self) -> Turn:
        self.begun += 1
        return await super().begin()


class FakePast:
    """Reads a log, a few messages of each partition at a time."""

    def __init__(self, log: dict[int, list[FeatureMessage]], at_a_time: int) -> None:
        self._log = log
        self._at_a_time = at_a_time
        self.readings = 0

    async def read(
        self,
        _topic: str,
        positions: Mapping[int, int],
        _until: Mapping[int, int],
        _max_bytes: int,
        digest: Callable[[Piece], object],
    ) -> object:
        self.readings += 1
        await asyncio.sleep(0)
        piece = Piece(positions=dict(positions))
        for partition, offset in positions.items():
            found = self._log[partition][offset : offset + self._at_a_time]
            piece.messages += found
            piece.positions[partition] = offset + len(found)
        return digest(piece)


class FakeFeed:
    """What a `History` sees of a feed.

    Args:
        log: Messages by partition; offsets are places in the lists.
        offsets: Up to where the feed has read, by partition.
        store_bytes: Of its store, which is empty.
        at_a_time: Messages of a partition in a piece.
    """

    def __init__(
        self,
        log: dict[int, list[FeatureMessage]],
        offsets: dict[int, int],
        *,
        store_bytes: int = 10**9,
        at_a_time: int = 20,
    ) -> None:
        self.log, self.offsets = log, offsets
        self.topic, self.topic_id, self.error = "features.set", b"id", None
        self.store = RecordStore("set", store_bytes)
        self.turns = CountedTurns()
        self.past = FakePast(log, at_a_time)

    def take_over(self, new: FeatureMessage) -> None:
        """Takes a live message, while nobody listens."""
        partition, offset = new.partition(), new.offset()
        self.log[partition].append(new)
        self.store.add(partition, offset, FeatureRecord(new))
        self.offsets[partition] = offset + 1
