"""Reads the past of feature topics in a few threads, a piece at a time.

A stream asks for a piece when it has delivered the last one, so one whose client is slow holds
neither a thread nor memory, and all take turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.errors import UnavailableError
from schemas.settings import Settings
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import kafka_error
from streams.kafka.tail import records_of, tail_consumer

_THREADS = 4
# A consumer that is left where its stream stopped goes on at once; beyond so many, streams share.
_CONSUMERS = 16
_BUFFER_BYTES = 1024**2
_MESSAGES_PER_POLL = 64
_POLL_S = 0.2

Result = TypeVar("Result")


@dataclass(slots=True)
class Piece:
    """What was read.

    Attributes:
        messages: In log order within a partition.
        positions: Next offset by partition.
    """

    messages: list[Message] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)


class _Place:
    """A consumer and where it stands."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.topic = ""
        self.positions: dict[int, int] = {}
        self.ends: set[int] = set()
        self.used = 0.0

    def free(self) -> None:
        """Ends reading ahead for a stream that does not come back."""
        self.topic = ""
        self.consumer.unassign()


class PastReader:
    """Kafka calls that wait, outside the event loop.

    Args:
        settings: Where Kafka is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="past")
        self._lock = threading.Lock()
        self._idle: list[_Place] = []
        self._count = 0
        self._closed = False

    async def run(self, work: Callable[[Consumer], Result]) -> Result:
        """Runs `work` in a thread with a consumer whose assignment it may replace.

        Raises:
            UnavailableError: The broker did not answer or refused.
        """

        def call() -> Result:
            with self._taken("", {}) as place:
                try:
                    return work(place.consumer)
                finally:
                    place.free()

        return await self._in_thread(call)

    async def read(
        self,
        topic: str,
        positions: Mapping[int, int],
        until: Mapping[int, int],
        max_bytes: int,
        digest: Callable[[Piece], Result],
    ) -> Result:
        """Reads a piece and digests it in the thread.

        Args:
            topic: The topic.
            positions: Where to begin, a number for each partition.
            until: A partition that has come this far may be left out of the piece.
            max_bytes: A piece ends when it has so many bytes of values.
            digest: Turns the piece into the result.

        Raises:
            RecordsLostError: A position is not in the topic any more.
            UnavailableError: The broker did not answer or refused.
        """
        wanted = dict(positions)

        def call() -> Result:
            with self._taken(topic, wanted) as place:
                return digest(_read(place, topic, wanted, until, max_bytes))

        return await self._in_thread(call)

    def rest(self, idle_s: float) -> None:
        """Lets consumers stop that stand where their stream has not come back for so long."""
        with self._lock:
            for place in self._idle:
                if place.topic and time.monotonic() - place.used > idle_s:
                    place.free()

    async def close(self) -> None:
        """Ends the threads and closes the consumers."""
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown, True, cancel_futures=True)
        for place in self._idle:
            place.consumer.close()
        self._idle.clear()

    async def _in_thread(self, call: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, call)
        except (asyncio.CancelledError, RuntimeError):
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            raise UnavailableError("expected the bridge to go on, it stops; try again") from None
        except KafkaException as error:
            raise UnavailableError(
                f"expected Kafka at {self._settings.kafka.bootstrap_servers} to answer, did not "
                f"({kafka_error(error).str()}); check the broker"
            ) from None

    @contextlib.contextmanager
    def _taken(self, topic: str, positions: dict[int, int]) -> Iterator[_Place]:
        """Takes a consumer out of the shelf, if possible the one that stands at a position."""
        with self._lock:
            at = next(
                (
                    place
                    for place in self._idle
                    if place.topic == topic and place.positions == positions
                ),
                None,
            )
            if at is not None:
                self._idle.remove(at)
            elif self._idle and self._count >= _CONSUMERS:
                at = self._idle.pop(0)
            else:
                at = next((place for place in self._idle if not place.topic), None)
                if at is not None:
                    self._idle.remove(at)
        if at is None:
            at = _Place(tail_consumer(self._settings, "mystocks-bridge.past", _BUFFER_BYTES))
            with self._lock:
                self._count += 1
        try:
            yield at
        except BaseException:
            at.free()
            raise
        finally:
            at.used = time.monotonic()
            with self._lock:
                self._idle.append(at)


def _read(
    place: _Place,
    topic: str,
    positions: dict[int, int],
    until: Mapping[int, int],
    max_bytes: int,
) -> Piece:
    if place.topic != topic or place.positions != positions:
        place.topic, place.positions, place.ends = topic, dict(positions), set()
        place.consumer.assign([TopicPartition(topic, p, o) for p, o in positions.items()])
    piece = Piece()
    size, deadline = 0, time.monotonic() + CALL_TIMEOUT_S
    while size < max_bytes and not _arrived(place, until):
        messages = place.consumer.consume(1, _POLL_S)
        if messages:
            messages += place.consumer.consume(_MESSAGES_PER_POLL - 1, 0.0)
        place.ends -= {m.partition() for m in messages if m.error() is None}
        records = records_of(messages, topic, place.positions, place.ends)
        piece.messages += records
        size += sum(map(len, records))
        if records:
            deadline = time.monotonic() + CALL_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise UnavailableError(
                f"expected records of {topic} within {CALL_TIMEOUT_S:g} s, was none; "
                "check the broker"
            )
    piece.positions = dict(place.positions)
    if _arrived(place, until):
        place.free()
    return piece


def _arrived(place: _Place, until: Mapping[int, int]) -> bool:
    return all(
        p in place.ends or position >= until.get(p, position)
        for p, position in place.positions.items()
    )
