"""One feature topic in one process: read once, shown to everybody who wants some of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog
from confluent_kafka import Message

from grpc_bridge.fanout.broker import Broker, TopicFacts
from grpc_bridge.fanout.channel import Channel, ChannelReader
from grpc_bridge.fanout.choice import Choice, check_names
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES
from grpc_bridge.fanout.errors import BadSelectionError, StreamCutError, TopicReplacedError
from grpc_bridge.fanout.past_reader import PastReader
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.store import RECORD_BYTES, RecordStore
from grpc_bridge.fanout.turns import Turns
from grpc_bridge.fanout.wire import encode_token
from schemas.errors import InvalidInputError, MyStocksError, UnavailableError
from streams.kafka.feature_positions import Marks, ends_of
from streams.kafka.tail import Handover, RecordsLostError, TopicTail, tail_consumer

_BUFFER_BYTES = 16 * 1024**2
_CATCH_UP_S = 10.0
# So many get the first block after a pause at once. A response to each of more costs too much for
# the blocks of a transaction, which come one after the other, not to be worth waiting for.
_FEW_READERS = 8

_log = structlog.get_logger(__name__)


class FeatureSetInfo(NamedTuple):
    """What is known of a feature set.

    Attributes:
        name: Name of the set.
        topic: Its topic.
        topic_id: Id of the topic.
        partitions: Number of partitions.
        columns: Names of the features; empty while the topic is.
    """

    name: str
    topic: str
    topic_id: str
    partitions: int
    columns: tuple[str, ...]


class Feed:
    """The newest part of a topic and the channels of its readers. Belongs to the event loop.

    Args:
        name: Of the feature set.
        facts: About the topic.
        broker: For questions about offsets.
        past: For reading what is not kept here.
        linger_s: Blocks that come within this time are published together.
        store_bytes: Of values of records to keep for readers of the past.

    Attributes:
        topic: The topic.
        topic_id: Its id, as bytes.
        partitions: Their number.
        columns: Names of the features, as in the newest record.
        offsets: Next record by partition.
        next_row: Next row by partition, where it is known.
        store: Records that were read lately.
        turns: Of readers of the past.
        past: As given.
        error: Why reading has ended, or None.
    """

    def __init__(
        self,
        name: str,
        facts: TopicFacts,
        broker: Broker,
        past: PastReader,
        *,
        linger_s: float,
        store_bytes: int = RECORD_BYTES,
    ) -> None:
        self.name = name
        self.topic = facts.topic
        self.topic_id = facts.topic_id.encode()
        self.partitions = facts.partitions
        self.columns: tuple[str, ...] = facts.columns
        self.offsets = dict(facts.ends)
        self.next_row = dict(facts.next_row)
        self.store = RecordStore(name, store_bytes)
        self.turns = Turns()
        self.past = past
        self.error: MyStocksError | None = None
        self._broker = broker
        self._linger_s = linger_s
        self._loop = asyncio.get_running_loop()
        self._set_hash = facts.set_hash
        self._token: bytes | None = None
        self._shared: dict[Choice, Channel] = {}
        self._everything: dict[Channel, None] = {}  # channels of all symbols
        self._by_symbol: dict[str, dict[Channel, None]] = {}
        self._unchecked: set[Channel] = set()
        self._dirty: dict[Channel, None] = {}
        self._flushed = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: list[tuple[Mapping[int, int], asyncio.Future[None]]] = []
        self._tail = TopicTail(
            tail_consumer(broker.settings, f"mystocks-bridge.{name}", _BUFFER_BYTES),
            self.topic,
            self.offsets,
            deliver=lambda handover: self._call(self._take_over, handover),
            failed=lambda error: self._call(self._reading_failed, error),
        )
        self._tail.start()

    def _call(self, function: object, argument: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, argument)  # type: ignore[arg-type]
        except RuntimeError:  # the loop was closed before this thread had ended
            self._tail.stop()

    @property
    def info(self) -> FeatureSetInfo:
        """What is known of the set."""
        return FeatureSetInfo(
            self.name, self.topic, self.topic_id.decode(), self.partitions, self.columns
        )

    @property
    def token(self) -> bytes:
        """Serialized ResumeToken of everything that was read."""
        if self._token is None:
            self._token = encode_token(self.topic_id, self.offsets, self.next_row)
        return self._token

    def is_at(self, offsets: Mapping[int, int]) -> bool:
        """Whether everything before these offsets was read."""
        return all(self.offsets.get(p, offset) >= offset for p, offset in offsets.items())

    def rows_after(self, rows: Mapping[int, int | None]) -> int:
        """Returns how many rows have been read that come after these."""
        return sum(
            max(0, self.next_row[p] - (row or 0)) for p, row in rows.items() if p in self.next_row
        )

    async def marks(self) -> dict[int, Marks]:
        """Returns beginning and end of each partition as of now."""
        return await self._broker.marks(self.topic, self.partitions, self.past)

    async def ends(self) -> dict[int, int]:
        """Returns the end of each partition as of now."""
        return ends_of(await self.marks())

    async def caught_up(self, offsets: Mapping[int, int], timeout_s: float = _CATCH_UP_S) -> None:
        """Waits until everything before these offsets was read and published.

        Raises:
            UnavailableError: It took too long, or reading has ended.
        """
        if self.error is not None:
            raise self.error
        if self.is_at(offsets):
            self._flush()
            return
        reached: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((dict(offsets), reached))
        try:
            await asyncio.wait_for(reached, timeout_s)
            self._flush()
        except TimeoutError:
            raise UnavailableError(
                f"expected {self.topic} to be read up to its end within {timeout_s:g} s, was not; "
                "check the broker and try again"
            ) from None
        finally:
            self._waiting = [pair for pair in self._waiting if pair[1] is not reached]

    def check(self, choice: Choice) -> None:
        """Refuses features that the set does not have, as far as they are known.

        Raises:
            BadSelectionError: There is no such feature.
        """
        if self.columns:
            check_names(choice, self.columns)

    def join(self, choice: Choice, reader: ChannelReader) -> Channel:
        """Adds a reader to the channel of its choice; it sees what is read from now on."""
        self._check_running()
        channel = self._shared.get(choice)
        if channel is None:
            channel = self._shared[choice] = self._new_channel(choice)
        else:
            # What waits to be published was read before this reader came.
            self.publish(channel)
        channel.add(reader)
        return channel

    def join_alone(self, choice: Choice, reader: ChannelReader) -> Channel:
        """Adds a reader to a channel of its own, whose set of symbols `widen` makes larger."""
        self._check_running()
        channel = self._new_channel(choice, alone=True)
        channel.add(reader)
        return channel

    def leave(self, channel: Channel, reader: ChannelReader) -> None:
        """Takes a reader out of its channel."""
        channel.remove(reader)
        if channel.readers:
            return
        if not channel.alone and self._shared.get(channel.choice) is channel:
            del self._shared[channel.choice]
        self._everything.pop(channel, None)
        for symbol in channel.choice.symbols or ():
            others = self._by_symbol.get(symbol, {})
            others.pop(channel, None)
            if not others:
                self._by_symbol.pop(symbol, None)
        self._unchecked.discard(channel)
        self._dirty.pop(channel, None)

    def publish(self, channel: Channel) -> None:
        """Publishes what a channel was offered, without lingering."""
        channel.publish(self.token)

    def widen(self, channel: Channel, symbols: AbstractSet[str]) -> None:
        """Shows more symbols on the channel of one reader."""
        known = channel.choice.symbols
        assert isinstance(known, set)
        if channel.readers:
            new = symbols - known
            # In place: a copy would cost as much as all symbols so far, for every few new ones.
            known |= new
            self._index(channel, new)

    def fail(self, error: MyStocksError) -> None:
        """Ends reading, and every reader with this error."""
        if self.error is not None:
            return
        self.error = error
        self._tail.stop()
        if self._timer is not None:
            self._timer.cancel()
        for channel in {*self._everything, *(c for cs in self._by_symbol.values() for c in cs)}:
            for reader in tuple(channel.readers):
                reader.failed(error)
        for _, reached in self._waiting:
            if not reached.done():
                reached.set_exception(error)

    async def close(self) -> None:
        """Ends reading and waits until the thread has gone."""
        self.fail(StreamCutError("expected the bridge to go on, it stops; subscribe again"))
        await asyncio.to_thread(self._tail.join, _CATCH_UP_S)

    def _check_running(self) -> None:
        if self.error is not None:
            raise self.error

    def _new_channel(self, choice: Choice, *, alone: bool = False) -> Channel:
        self.check(choice)
        channel = Channel(self.name, choice, self.token, alone=alone)
        if choice.symbols is None:
            self._everything[channel] = None
        else:
            self._index(channel, choice.symbols)
        if choice.names is not None and not self.columns:
            self._unchecked.add(channel)
        return channel

    def _index(self, channel: Channel, symbols: AbstractSet[str]) -> None:
        for symbol in symbols:
            self._by_symbol.setdefault(symbol, {})[channel] = None

    def _take_over(self, handover: Handover) -> None:
        try:
            if self.error is not None:
                return
            for message in handover.messages:
                self._accept(message)
            for partition, offset in handover.positions.items():
                if offset > self.offsets[partition]:
                    self.store.add(partition, self.offsets[partition], offset)
                    self.offsets[partition] = offset
                    self._token = None
        except Exception as error:
            # Going on would leave a gap.
            _log.exception("reading ended", topic=self.topic)
            self._reading_failed(error)
            return
        finally:
            self._tail.done()
        for offsets, reached in self._waiting:
            if not reached.done() and self.is_at(offsets):
                reached.set_result(None)
        self._flush_soon()

    def _accept(self, message: Message) -> None:
        partition = message.partition()
        position, self.offsets[partition] = self.offsets[partition], message.offset() + 1
        self._token = None
        try:
            record = FeatureRecord(message)
            expected = self.next_row.get(partition, record.first_row)
            seen = max(0, expected - record.first_row)
            end = max(expected, record.next_row)
            targets = self._targets(record)
        except InvalidInputError as error:
            self.store.add(partition, position, message.offset() + 1)
            where = f"{self.topic} {partition} {message.offset()}"
            _log.error("no feature block", error=str(error), where=where)
            return
        if record.first_row > expected:
            _log.error(
                "row gap", partition=partition, expected=expected, first_row=record.first_row
            )
        self.next_row[partition] = end
        self.store.add(partition, position, record)
        for channel in targets:
            if channel.offer(record, seen, self.store):
                self._dirty[channel] = None
                if channel.pending_bytes >= MAX_RESPONSE_BYTES:
                    self.publish(channel)
        self.store.used(record)

    def _targets(self, record: FeatureRecord) -> list[Channel]:
        """Returns the channels that may show rows of a record."""
        if record.set_hash != self._set_hash or not self.columns:
            self._set_hash, self.columns = record.set_hash, record.columns().names
            self._check_channels()
        targets = dict(self._everything)
        if self._by_symbol:
            for symbol in record.columns().symbols:
                targets.update(self._by_symbol.get(symbol, ()))
        if targets:
            record.columns()
        return list(targets)

    def _check_channels(self) -> None:
        for channel in tuple(self._unchecked):
            try:
                check_names(channel.choice, self.columns)
            except BadSelectionError as error:
                for reader in tuple(channel.readers):
                    reader.failed(error)
        self._unchecked.clear()

    def _flush_soon(self) -> None:
        if not self._dirty or self._timer is not None:
            return
        readers = sum([len(channel.readers) for channel in self._dirty])
        began = time.monotonic() if readers > _FEW_READERS else self._flushed
        wait = began + self._linger_s - time.monotonic()
        if wait <= 0:
            self._flush()
        else:
            self._timer = self._loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed = time.monotonic()
        dirty, self._dirty = self._dirty, {}
        for channel in dirty:
            self.publish(channel)

    def _reading_failed(self, error: Exception) -> None:
        _log.error("reading ended", topic=self.topic, error=str(error))
        if isinstance(error, RecordsLostError):
            self.fail(TopicReplacedError(str(error)))
        else:
            self.fail(
                StreamCutError(f"expected to read {self.topic}, failed ({error}); subscribe again")
            )
