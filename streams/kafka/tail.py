"""Reading a topic from given offsets on, in a thread, for as long as the process lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import MyStocksError
from schemas.settings import Settings
from streams.kafka.clients import LIBRDKAFKA_LOG, consumer_config

# Between two polls the thread sees that it should stop.
_POLL_S = 0.1
_MESSAGES_PER_POLL = 256
# One hand-over keeps the receiver busy for a few milliseconds at most.
_HANDOVER_BYTES = 1024**2
# So many hand-overs may wait for the receiver before the thread waits for it.
_HANDOVERS_AHEAD = 2

_LOST = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
# The client connects again by itself.
_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
    }
)

_log = structlog.get_logger(__name__)


class RecordsLostError(MyStocksError):
    """Records were deleted before they were read, or the topic was."""


@dataclass(slots=True)
class Handover:
    """What was read since the last one.

    Attributes:
        messages: Records in log order within a partition, without errors.
        positions: Offset of the next record, by partition; also where only the records that mark
            the end of a transaction were passed.
    """

    messages: list[Message] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)


def tail_consumer(settings: Settings, name: str, buffer_bytes: int) -> Consumer:
    """Returns a consumer outside any group with a small buffer that reports ends of partitions.

    Args:
        settings: Where Kafka is.
        name: Shown in the broker's logs.
        buffer_bytes: Of messages fetched ahead.
    """
    fetch = max(64 * 1024, min(buffer_bytes, 1024**2))
    return Consumer(
        {
            **consumer_config(settings),
            "group.id": f"{name}.reader",
            "enable.partition.eof": True,
            "max.partition.fetch.bytes": fetch,
            "queued.max.messages.kbytes": max(1, buffer_bytes // 1024),
            # Readers of streams wait for a broker that comes back.
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
        },
        logger=LIBRDKAFKA_LOG,
    )


def records_of(
    messages: list[Message], topic: str, positions: dict[int, int], ends: set[int]
) -> list[Message]:
    """Returns the records among polled messages.

    Args:
        messages: As polled.
        topic: For error messages.
        positions: Is brought forward to where the poll ended, by partition.
        ends: Takes the partitions whose end was met.

    Raises:
        RecordsLostError: A position is not in the topic any more.
        KafkaException: The broker refuses the read.
    """
    records = []
    for message in messages:
        error = message.error()
        if error is None:
            positions[message.partition()] = message.offset() + 1
            records.append(message)
            continue
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            positions[message.partition()] = message.offset()
            ends.add(message.partition())
        elif code in _LOST:
            raise RecordsLostError(
                f"expected {topic} to hold offset {message.offset()} of partition "
                f"{message.partition()}, was deleted; start from 'earliest'"
            )
        elif code in _GONE:
            raise RecordsLostError(f"expected topic {topic}, was deleted; create it again")
        elif code in _PASSING or error.retriable():
            _log.warning("kafka", error=error.str(), code=error.name())
        else:
            raise KafkaException(error)
    return records


class TopicTail:
    """Reads all partitions of a topic and hands what it read to one receiver.

    Args:
        consumer: Made by `tail_consumer`; the tail closes it.
        topic: The topic.
        offsets: Where to begin, a number for each partition.
        deliver: Called in the thread with each hand-over; `done` must be called for each of them.
        failed: Called in the thread once reading cannot go on.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        offsets: Mapping[int, int],
        *,
        deliver: Callable[[Handover], Any],
        failed: Callable[[Exception], Any],
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._deliver = deliver
        self._failed = failed
        self._stopping = threading.Event()
        self._room = threading.Semaphore(_HANDOVERS_AHEAD)
        self._thread = threading.Thread(target=self._run, name=f"tail {topic}", daemon=True)
        consumer.assign([TopicPartition(topic, p, offset) for p, offset in offsets.items()])

    def start(self) -> None:
        """Starts reading."""
        self._thread.start()

    def done(self) -> None:
        """A hand-over was taken; may be called from any thread."""
        self._room.release()

    def stop(self) -> None:
        """Ends the thread soon, without waiting for it."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Waits until the thread has ended and the consumer is closed."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                messages = self._consumer.consume(1, _POLL_S)
                if messages:
                    messages += self._consumer.consume(_MESSAGES_PER_POLL - 1, 0.0)
                for handover in self._handovers(messages):
                    while not self._room.acquire(timeout=_POLL_S):
                        if self._stopping.is_set():
                            return
                    self._deliver(handover)
        except (KafkaException, RuntimeError, MyStocksError) as error:
            if not self._stopping.is_set():
                self._failed(error)
        finally:
            self._consumer.close()

    def _handovers(self, messages: list[Message]) -> Iterator[Handover]:
        """Yields pieces of a poll that are not too large."""
        part, size = Handover(), 0
        for message in messages:
            part.messages += records_of([message], self._topic, part.positions, set())
            size += len(message)
            if size >= _HANDOVER_BYTES:
                yield part
                part, size = Handover(), 0
        if part.positions:
            yield part
