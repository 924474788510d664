"""Asks by a record and awaits the reply, for an asyncio program.

Whoever asks gets an answer or learns why there is none: at once when nobody is there to answer, and
before the deadline in any case.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from confluent_kafka import (
    ConsumerGroupState,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from schemas.partitioner import murmur2
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.topics import MAX_MESSAGE_BYTES
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.requests.clients import message_producer, reply_consumer
from streams.requests.envelope import Envelope
from streams.requests.replies import Reply, ReplyReader
from streams.requests.topics import RequestTopics

# Of the time that a caller allows, the part after which it is told that nothing came: what is left
# suffices for the message to reach it before its own deadline does.
_PATIENCE = 0.8
# Silence from the workers, while somebody waits, after which the group is looked at.
_SILENCE_S = 0.5
# Envelope and framing of a request's record.
_RECORD_OVERHEAD = 1024
# How long requests go to the same partition; a broker's work is per batch, not per record.
_STICKY_S = 0.005
_MOST_IN_FLIGHT = 4096
_RETRY_AFTER_S = 0.5

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    reply: "asyncio.Future[Reply]"
    delivered: bool = False


class Requester:
    """Sends requests of one kind and resolves their replies; belongs to one event loop.

    Args:
        settings: Where Kafka is.
        topics: Where requests go and replies come from.
        most_in_flight: Requests that may wait at once.
    """

    def __init__(
        self, settings: Settings, topics: RequestTopics, *, most_in_flight: int = _MOST_IN_FLIGHT
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._most = most_in_flight
        self._id = uuid.uuid4().hex.encode()
        self._waiting: dict[bytes, _Waiting] = {}
        self._partition = 0
        self._request_partitions = 1
        self._heard = 0.0
        self._closed = True
        self._watcher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._admin: AdminClient
        self._producer: Producer
        self._reader: ReplyReader

    @property
    def in_flight(self) -> int:
        """How many requests wait for their reply."""
        return len(self._waiting)

    async def start(self) -> None:
        """Connects, and reads replies from now on.

        Raises:
            KafkaUnavailableError: No broker answered, or a topic is missing.
        """
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._connect)
        self._closed = False

    def _connect(self) -> None:
        self._admin = admin_client(self._settings)
        self._request_partitions = partition_count(self._admin, self._topics.requests)
        partitions = partition_count(self._admin, self._topics.replies)
        self._partition = (murmur2(self._id) & 0x7FFFFFFF) % partitions
        # A request's own deadline comes earlier; this only empties the queue of a lost broker.
        self._producer = message_producer(self._settings, 60.0)
        self._reader = ReplyReader(
            reply_consumer(self._settings, self._id.decode()),
            TopicPartition(self._topics.replies, self._partition),
            self._id,
            self._hand_over,
            partial(self._producer.poll, 0),
        )
        try:
            self._reader.start()
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected to read {self._topics.replies}, was refused "
                f"({kafka_error(error).str()}); check the broker"
            ) from error

    async def close(self) -> None:
        """Fails what still waits and ends the clients."""
        if self._closed:
            return
        self._closed = True
        self._fail_all("expected a reply, was none before this server stopped; ask another one")
        if self._watcher is not None:
            self._watcher.cancel()
        await self._loop.run_in_executor(None, self._reader.stop)

    async def ask(self, value: bytes, timeout_s: float) -> Reply:
        """Returns the reply to a request.

        Args:
            value: The request.
            timeout_s: How long the caller waits; it hears of a failure earlier.

        Raises:
            RequestFailedError: `UNAVAILABLE` when nobody answers, `RESOURCE_EXHAUSTED` when too
                many requests wait, `INVALID_ARGUMENT` when the request is too large for a record.
        """
        if self._closed:
            raise _unavailable("expected a running server, was one that stops; ask another one")
        if len(self._waiting) >= self._most:
            raise _exhausted(f"expected at most {self._most} {self._topics.kind} requests at once")
        most_bytes = MAX_MESSAGE_BYTES - _RECORD_OVERHEAD
        if len(value) > most_bytes:
            raise RequestFailedError(
                Code.INVALID_ARGUMENT,
                f"expected a request of at most {most_bytes} bytes, was {len(value)}; "
                "send less at a time",
            )
        patience = timeout_s * _PATIENCE
        request_id = uuid.uuid4().hex.encode()
        waiting = _Waiting(self._loop.create_future())
        self._waiting[request_id] = waiting
        give_up = self._loop.call_later(patience, self._give_up, waiting, patience)
        try:
            self._send(request_id, value, patience, waiting)
            self._watch()
            return await waiting.reply
        finally:
            give_up.cancel()
            self._waiting.pop(request_id, None)

    def _send(self, request_id: bytes, value: bytes, patience: float, waiting: _Waiting) -> None:
        envelope = Envelope(
            request_id,
            self._id,
            self._topics.group,
            self._topics.replies,
            self._partition,
            int((time.time() + patience) * 1000),
        )
        try:
            self._producer.produce(
                self._topics.requests,
                value,
                request_id,
                self._next_partition(),
                on_delivery=partial(self._delivered, waiting),
                headers=envelope.as_headers(),
            )
        except BufferError:
            raise _exhausted("expected the broker to keep up with the requests") from None
        except KafkaException as error:
            raise _unavailable(
                f"expected to send the request, was refused ({kafka_error(error).str()}); try again"
            ) from error

    def _next_partition(self) -> int:
        """Returns where requests go at the moment: those of one moment travel as one batch."""
        moment = int(self._loop.time() / _STICKY_S) + self._partition
        return moment % self._request_partitions

    def _delivered(self, waiting: _Waiting, error: KafkaError | None, _message: Any) -> None:
        """Notes in whichever thread polls what became of a request's record."""
        if error is None:
            waiting.delivered = True
            return
        failure = _unavailable(
            f"expected the broker to take the request, was refused ({error.str()}); try again"
        )
        self._call(partial(_fail, waiting, failure))

    def _hand_over(self, replies: Sequence[tuple[bytes, Reply]]) -> None:
        self._call(partial(self._resolve, replies))

    def _call(self, function: Callable[[], None]) -> None:
        """Calls something on the event loop, unless that is closed."""
        if not self._closed:
            self._loop.call_soon_threadsafe(function)

    def _resolve(self, replies: Sequence[tuple[bytes, Reply]]) -> None:
        self._heard = time.monotonic()
        for request_id, reply in replies:
            waiting = self._waiting.get(request_id)
            if waiting is not None and not waiting.reply.done():
                waiting.reply.set_result(reply)

    def _give_up(self, waiting: _Waiting, patience: float) -> None:
        if waiting.delivered:
            missing = f"a reply of a {self._topics.kind} worker"
            advice = f"see whether role {self._topics.kind} runs and keeps up, then try again"
        else:
            missing = "the broker to take the request"
            advice = "check the broker, then try again"
        _fail(
            waiting,
            _unavailable(f"expected {missing} within {patience:.3g} s, was none; {advice}"),
        )

    def _fail_all(self, message: str) -> None:
        for waiting in self._waiting.values():
            _fail(waiting, _unavailable(message))

    def _watch(self) -> None:
        """Sees to it that the group is looked at while somebody waits and nothing comes."""
        silent = time.monotonic() - self._heard > _SILENCE_S
        if silent and (self._watcher is None or self._watcher.done()):
            self._watcher = self._loop.create_task(self._look_at_workers())

    async def _look_at_workers(self) -> None:
        while self._waiting and not self._closed:
            if time.monotonic() - self._heard > _SILENCE_S and await self._nobody_works():
                self._fail_all(
                    f"expected a {self._topics.kind} worker, none is running (consumer group "
                    f"{self._topics.group}); start role {self._topics.kind}"
                )
                return
            await asyncio.sleep(_SILENCE_S)

    async def _nobody_works(self) -> bool:
        group = self._topics.group
        try:
            found = await asyncio.wrap_future(
                self._admin.describe_consumer_groups([group], request_timeout=5.0)[group]
            )
        except KafkaException as error:
            # A group that was never there does not exist.
            return bool(kafka_error(error).code() == KafkaError.GROUP_ID_NOT_FOUND)
        return not found.members and found.state in (
            ConsumerGroupState.EMPTY,
            ConsumerGroupState.DEAD,
        )


def _fail(waiting: _Waiting, error: RequestFailedError) -> None:
    if not waiting.reply.done():
        waiting.reply.set_exception(error)


def _unavailable(message: str) -> RequestFailedError:
    return RequestFailedError(Code.UNAVAILABLE, message, retry_after_s=_RETRY_AFTER_S)


def _exhausted(message: str) -> RequestFailedError:
    return RequestFailedError(
        Code.RESOURCE_EXHAUSTED, f"{message}, was one more; try again", retry_after_s=_RETRY_AFTER_S
    )
