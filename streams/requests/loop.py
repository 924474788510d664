"""Answers requests of a topic: poll, compute, reply, commit.

    <kind>.requests -> poll -> parse -> answer -> <kind>.replies -> commit
                                 |        ^
                                 +-slow-> threads

A request counts as done when the broker has its reply, and offsets are committed up to the first
one that is not done; so each is answered at least once, and a repeated reply finds nobody waiting.
Requests that take long get a thread, so that the others need not wait for them.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import ConfigurationError, InvalidInputError, MyStocksError, UnavailableError
from schemas.requests import Code, RequestFailedError
from streams.kafka.errors import FencedError, KafkaUnavailableError, is_fenced, kafka_error
from streams.requests.envelope import Envelope, MalformedEnvelopeError
from streams.requests.handler import Question, RequestHandler
from streams.requests.metrics import RequestMetrics
from streams.requests.progress import Progress
from streams.requests.topics import RequestTopics

# How long an idle poll waits; also bounds how late commits and a stop are.
_IDLE_S = 0.1
_COMMIT_EVERY_S = 0.1
# Requests between two looks at commits and deliveries.
_BATCH = 64
_SLOW_THREADS = 2
# Slow requests that may run or wait; the next one is told to come again.
_MOST_SLOW = 32
# When a request may come again that found no place, or a server that was away.
_RETRY_AFTER_S = 1.0
# For replies in hand at a stop.
_DRAIN_S = 10.0
# What an envelope and Kafka's framing add to a reply.
_RECORD_OVERHEAD = 1024
_WARN_EVERY_S = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A request in hand."""

    envelope: Envelope
    partition: int
    offset: int
    began: float


class RequestLoop(Generic[Question]):
    """Runs a handler over this process's share of the requests.

    Args:
        topics: Where requests come from and replies go.
        handler: Computes the replies.
        consumer: Member of the group.
        producer: Of replies.
        reply_partitions: Partition count of the topic of replies.
        most_bytes: Of a record.
        metrics: Of this process.
        clock: Wall clock in seconds since 1970.
    """

    def __init__(
        self,
        topics: RequestTopics,
        handler: RequestHandler[Question],
        *,
        consumer: Consumer,
        producer: Producer,
        reply_partitions: int,
        most_bytes: int,
        metrics: RequestMetrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._topics = topics
        self._handler = handler
        self._consumer = consumer
        self._producer = producer
        self._reply_partitions = reply_partitions
        self._most_bytes = most_bytes - _RECORD_OVERHEAD
        self._metrics = metrics
        self._clock = clock
        self._progress = Progress()
        self._slow = ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix=f"{topics.kind}-slow")
        self._slow_room = threading.BoundedSemaphore(_MOST_SLOW)
        self._assigned = False
        self._stopping = False
        self._committed = time.monotonic()
        self._warned = -_WARN_EVERY_S

    def stop(self) -> None:
        """Makes `run` answer what is in hand, commit and return."""
        self._stopping = True

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs until `stop`.

        Args:
            on_ready: Called once the group has given this process its share.

        Raises:
            FencedError: Another process has taken over.
            KafkaUnavailableError: The topic cannot be read.
        """
        self._consumer.subscribe(
            [self._topics.requests],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        ready = False
        try:
            while not self._stopping:
                for message in self._poll():
                    self._take(message)
                self._producer.poll(0)
                self._commit_if_due()
                if self._assigned and not ready:
                    ready = True
                    on_ready()
            self._drain()
        finally:
            self._slow.shutdown(wait=False, cancel_futures=True)
            self._consumer.close()

    def _poll(self) -> list[Message]:
        messages = self._consumer.consume(_BATCH, 0)
        if not messages:
            messages = self._consumer.consume(1, _IDLE_S)
            if messages:
                messages += self._consumer.consume(_BATCH - 1, 0)
        return [message for message in messages if self._is_data(message)]

    def _is_data(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if is_fenced(error):
            raise FencedError(
                f"expected to be the only process of this name, was fenced ({error.str()}); "
                "stop one of the two"
            )
        if error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise KafkaUnavailableError(
                f"expected to read {self._topics.requests}, was refused ({error.str()}); "
                "check the broker"
            )
        self._warn("no requests for now", error=error.str())
        return False

    def _take(self, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        self._progress.begin(partition, offset)
        try:
            envelope = Envelope.parse(message.headers())
        except MalformedEnvelopeError as error:
            self._skip(partition, offset, "MALFORMED", str(error))
            return
        if envelope.group is not None and envelope.group != self._topics.group:
            self._skip(partition, offset, "FOREIGN")
            return
        if (
            envelope.reply_topic != self._topics.replies
            or not 0 <= envelope.reply_partition < self._reply_partitions
        ):
            where = f"{envelope.reply_topic} {envelope.reply_partition}"
            self._skip(partition, offset, "MALFORMED", f"replies wanted on {where}")
            return
        taken = _Taken(envelope, partition, offset, time.perf_counter())
        if self._remaining_s(taken) <= 0:
            self._skip(partition, offset, "EXPIRED")
            return
        try:
            request = self._handler.parse(message.value() or b"")
            slow = self._handler.is_slow(request)
        except Exception as error:
            self._fail(taken, error)
            return
        if not slow:
            self._answer(taken, request, "quick")
        elif self._slow_room.acquire(blocking=False):
            self._metrics.slow_waiting(1)
            self._slow.submit(self._answer_slowly, taken, request)
        else:
            self._fail(
                taken,
                RequestFailedError(
                    Code.RESOURCE_EXHAUSTED,
                    f"expected at most {_MOST_SLOW} slow requests at a {self._topics.kind} worker, "
                    "was one more; try again later",
                    retry_after_s=_RETRY_AFTER_S,
                ),
            )

    def _answer_slowly(self, taken: _Taken, request: Question) -> None:
        try:
            if self._remaining_s(taken) > 0:
                self._answer(taken, request, "slow")
            else:
                self._skip(taken.partition, taken.offset, "EXPIRED")
        finally:
            self._slow_room.release()
            self._metrics.slow_waiting(-1)

    def _answer(self, taken: _Taken, request: Question, lane: str) -> None:
        try:
            reply = self._handler.answer(request, partial(self._remaining_s, taken))
            if len(reply) > self._most_bytes:
                raise RequestFailedError(
                    Code.RESOURCE_EXHAUSTED,
                    f"expected a reply of at most {self._most_bytes} bytes, was {len(reply)}; "
                    "ask for less at a time",
                )
        except Exception as error:
            self._fail(taken, error)
            return
        self._reply(taken, reply, None)
        self._metrics.outcome("OK")
        self._metrics.answered(lane, time.perf_counter() - taken.began)

    def _fail(self, taken: _Taken, error: Exception) -> None:
        failed = as_failure(error)
        if failed.code == Code.INTERNAL:
            _log.exception("a request failed", request=taken.envelope.request_id, exc_info=error)
        self._reply(taken, self._handler.failure(failed), failed.code)
        self._metrics.outcome(failed.code.name)

    def _reply(self, taken: _Taken, value: bytes, failure: Code | None) -> None:
        envelope = taken.envelope
        while True:
            try:
                self._producer.produce(
                    envelope.reply_topic,
                    value,
                    envelope.request_id,
                    envelope.reply_partition,
                    on_delivery=partial(self._delivered, taken),
                    headers=envelope.reply_headers(failure),
                )
                return
            except BufferError:
                self._producer.poll(0.01)
                if self._remaining_s(taken) <= 0:
                    self._skip(taken.partition, taken.offset, "EXPIRED")
                    return
            except KafkaException as error:
                self._delivered(taken, kafka_error(error), None)
                return

    def _delivered(self, taken: _Taken, error: KafkaError | None, _message: Any) -> None:
        # A reply that the broker did not take in time finds nobody waiting any more.
        self._progress.done(taken.partition, taken.offset)
        if error is not None:
            self._warn("a reply was not delivered", error=error.str())

    def _skip(self, partition: int, offset: int, outcome: str, reason: str = "") -> None:
        self._progress.done(partition, offset)
        self._metrics.outcome(outcome)
        if reason:
            self._warn("a request was passed over", offset=offset, reason=reason)

    def _remaining_s(self, taken: _Taken) -> float:
        return taken.envelope.deadline_ms / 1000 - self._clock()

    def _commit_if_due(self) -> None:
        now = time.monotonic()
        if now - self._committed >= _COMMIT_EVERY_S:
            self._committed = now
            self._commit(asynchronous=True)

    def _commit(self, *, asynchronous: bool) -> None:
        offsets = [
            TopicPartition(self._topics.requests, partition, offset)
            for partition, offset in self._progress.advanced().items()
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=asynchronous)
        except KafkaException as error:
            if is_fenced(kafka_error(error)):
                raise FencedError(
                    "expected to be the only process of this name, was fenced at a commit; "
                    "stop one of the two"
                ) from error
            # Without a later commit these requests are answered twice, which harms nobody.
            self._warn("offsets were not committed", error=kafka_error(error).str())

    def _drain(self) -> None:
        """Answers what was taken, waits for the broker, commits."""
        deadline = time.monotonic() + _DRAIN_S
        while self._progress.waiting and time.monotonic() < deadline:
            self._producer.poll(0.01)
        self._commit(asynchronous=False)

    def _on_assign(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        self._assigned = True
        _log.info("assigned", partitions=sorted(part.partition for part in partitions))

    def _on_revoke(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        try:
            self._commit(asynchronous=False)
        except MyStocksError as error:
            # A callback raises nothing; the next poll meets the same.
            self._warn("not committed before partitions went", error=str(error))
        self._on_lost(_consumer, partitions)

    def _on_lost(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            self._progress.forget(part.partition)
        _log.info("released", partitions=sorted(part.partition for part in partitions))

    def _warn(self, event: str, **details: object) -> None:
        now = time.monotonic()
        if now - self._warned >= _WARN_EVERY_S:
            self._warned = now
            _log.warning(event, **details)


def as_failure(error: Exception) -> RequestFailedError:
    """Returns what a requester is told of an error."""
    if isinstance(error, RequestFailedError):
        return error
    if isinstance(error, UnavailableError):
        return RequestFailedError(Code.UNAVAILABLE, str(error), retry_after_s=_RETRY_AFTER_S)
    if isinstance(error, ConfigurationError | InvalidInputError):
        return RequestFailedError(Code.INVALID_ARGUMENT, str(error))
    return RequestFailedError(
        Code.INTERNAL,
        f"expected an answer, was {type(error).__name__} in the worker; its log says more",
    )
