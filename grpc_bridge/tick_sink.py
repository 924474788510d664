"""Ticks of all streams into the log, and what became of them back to the streams.

Everything runs in the event loop: ticks are collected for a few milliseconds over all streams,
checked and sorted by partition in one compiled call, and handed to librdkafka, which sends in a
thread of its own. Without a Python thread nobody waits for the interpreter's lock.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from grpc_bridge.metrics import BridgeMetrics
from grpc_bridge.tick_sender import UNKNOWN_OFFSET, TickRequest, TickSender
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.ticks.splitter import SplitTicks, TickRecord, TickSplitter
from schemas.topics import MAX_MESSAGE_BYTES, ticks_topic
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S, producer
from streams.kafka.errors import kafka_error

# Each record costs the broker a request, and the role that reads it another. At 5,000 single ticks
# a second on two cores 3 ms took 36 ms from send to row, 6 ms 31 and 10 ms 34.
_LINGER_S = 0.006
# More than this is sorted at once; it takes a few milliseconds.
_FLUSH_BYTES = 1024**2
# The broker's limit counts key, headers and framing too.
_MAX_VALUE_BYTES = MAX_MESSAGE_BYTES - 16 * 1024
# Ticks of all streams that may wait for the broker.
_MAX_OUTSTANDING_BYTES = 64 * 1024**2
# How often delivery reports are asked for: while they come, and while the broker is silent.
_POLL_S = 0.001
_SILENT_POLL_S = 0.02
_SILENT_AFTER_POLLS = 200
# A client that does not read is not read either once it has so many acknowledgements waiting.
_MAX_UNSENT = 10_000
# Each waiting request costs a few hundred bytes beside its ticks.
_REQUEST_BYTES = 256

_log = structlog.get_logger(__name__)


class TickSink:
    """Writes ticks with one idempotent producer.

    Args:
        settings: Servers, topic and bounds.
        metrics: Counts ticks.
    """

    def __init__(self, settings: Settings, metrics: BridgeMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._topic = ticks_topic(settings)
        self._limit = settings.grpc.unacknowledged_bytes
        self._waiting: list[tuple[TickRequest, bytes]] = []
        self._waiting_bytes = 0
        self._outstanding_bytes = 0
        self._records = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._poll_timer: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._silent_polls = 0
        self._room = asyncio.Event()
        self._producer: Producer | None = None
        self._dead = False

    @property
    def outstanding_bytes(self) -> int:
        """Bytes of ticks of all streams that wait for the broker."""
        return self._outstanding_bytes

    async def start(self) -> None:
        """Compiles, and connects to the broker.

        Raises:
            KafkaUnavailableError: No broker answers, or the topic is missing.
        """
        self._loop = asyncio.get_running_loop()
        count = await asyncio.to_thread(self._partition_count)
        self._splitter = TickSplitter(count, _MAX_VALUE_BYTES)
        self._splitter.warm_up()
        self._producer = self._new_producer()

    async def close(self) -> None:
        """Sends what waits and waits for the broker, at most as long as a record may take."""
        if self._producer is None:
            return
        self._flush()
        deadline = self._loop.time() + self._settings.grpc.delivery_timeout_s
        while self._records and self._loop.time() < deadline:
            self._producer.poll(0)
            await asyncio.sleep(_POLL_S)
        for timer in (self._flush_timer, self._poll_timer):
            if timer is not None:
                timer.cancel()

    def submit(self, sender: TickSender, number: int, value: bytes) -> None:
        """Takes the ticks of a request.

        Args:
            sender: Told what becomes of them.
            number: The client's number of the request.
            value: A serialized `TickBatch`, not looked at yet.
        """
        size = len(value) + _REQUEST_BYTES
        self._waiting.append((sender.receive(number, size), value))
        self._waiting_bytes += size
        self._outstanding_bytes += size
        if self._waiting_bytes > _FLUSH_BYTES:
            self._flush()
        elif self._flush_timer is None:
            # The first tick after a silence does not wait; those that follow come together.
            at = max(self._loop.time(), self._flushed + _LINGER_S)
            self._flush_timer = self._loop.call_at(at, self._flush)

    async def wait_for_room(self, sender: TickSender) -> None:
        """Returns once the stream may send more: until then it is not read, so gRPC slows it."""
        while self._is_full(sender) and sender.failure is None:
            self._room.clear()
            await self._room.wait()

    def made_room(self) -> None:
        """A stream has sent what waited for its reader."""
        self._room.set()

    def _is_full(self, sender: TickSender) -> bool:
        return (
            sender.outstanding_bytes > self._limit
            or sender.unsent > _MAX_UNSENT
            or self._outstanding_bytes > _MAX_OUTSTANDING_BYTES
        )

    def _partition_count(self) -> int:
        return partition_count(admin_client(self._settings), self._topic)

    def _new_producer(self) -> Producer:
        return producer(self._settings, delivery_timeout_s=self._settings.grpc.delivery_timeout_s)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        requests = [request for request, _ in waiting]
        split = self._splitter.split([value for _, value in waiting])
        self._report(requests, split)
        self._tell_symbols(requests, split)
        # Counted before anything is written, so that no report completes a request too early.
        for record in split.records:
            for message, _ in record.runs:
                request = requests[message]
                request.records += 1
                in_flight = request.sender.in_flight
                in_flight[record.partition] = in_flight.get(record.partition, 0) + 1
        for request in requests:
            if not request.records:
                self._complete(request)
        for record in split.records:
            self._produce(record, [(requests[message], ticks) for message, ticks in record.runs])
        self._flushed = self._loop.time()
        self._schedule_poll()

    def _report(self, requests: Sequence[TickRequest], split: SplitTicks) -> None:
        """Tells senders what was wrong."""
        for k, (request, count) in enumerate(zip(requests, split.ticks.tolist(), strict=True)):
            request.sender.receive_ticks(count)
            if not count and k not in split.malformed:
                request.sender.refuse(request.number, 0, "batch has no ticks, expected at least 1")
        for message, row, reason in split.refused:
            request = requests[message]
            request.sender.refuse(request.number, row, reason)
        self._metrics.ticks(refused=len(split.refused))
        for message, reason in split.malformed.items():
            request = requests[message]
            request.sender.fail(malformed_error(request.number, reason))
            self._room.set()

    def _tell_symbols(self, requests: Sequence[TickRequest], split: SplitTicks) -> None:
        """Tells senders which symbols they send for the first time."""
        codes = split.code.tolist()
        sent_by: dict[TickSender, list[int]] = {}
        end = 0
        for request, count in zip(requests, split.accepted.tolist(), strict=True):
            begin, end = end, end + count
            if count and request.sender.on_symbols is not None:
                sent_by.setdefault(request.sender, []).extend(codes[begin:end])
        for sender, sent in sent_by.items():
            fresh = sender.fresh_codes(sent, self._splitter.generation)
            if fresh and sender.on_symbols is not None:
                sender.on_symbols({self._splitter.symbol(code) for code in fresh})

    def _produce(self, record: TickRecord, runs: list[tuple[TickRequest, int]]) -> None:
        assert self._producer is not None
        try:
            self._producer.produce(
                self._topic,
                record.value,
                record.symbol,
                record.partition,
                on_delivery=partial(self._delivered, runs, record.partition),
                timestamp=record.newest_ns // 1_000_000,
            )
            self._records += 1
        except BufferError:
            self._failed(runs, record.partition, "the queue of unsent records is full")
        except KafkaException as error:
            self._failed(runs, record.partition, kafka_error(error).str())
            self._dead = self._dead or kafka_error(error).fatal()

    def _delivered(
        self,
        runs: list[tuple[TickRequest, int]],
        partition: int,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        self._records -= 1
        self._silent_polls = 0
        if error is not None:
            self._failed(runs, partition, error.str())
            self._dead = self._dead or error.fatal()
            return
        offset, total = message.offset(), 0
        if offset is None:
            offset = UNKNOWN_OFFSET
        for request, ticks in runs:
            size = request.size
            request.sender.acknowledge(request, ticks, partition, offset)
            if not request.records:
                self._outstanding_bytes -= size
            total += ticks
        self._metrics.ticks(acknowledged=total)
        self._room.set()

    def _complete(self, request: TickRequest) -> None:
        self._outstanding_bytes -= request.size
        request.sender.complete(request)
        self._room.set()

    def _failed(self, runs: list[tuple[TickRequest, int]], partition: int, reason: str) -> None:
        for request, ticks in runs:
            self._outstanding_bytes -= request.size
            request.sender.in_flight[partition] -= 1
            request.sender.release(request)
            request.sender.fail(_lost_error(reason, self._settings.grpc.delivery_timeout_s))
            self._metrics.ticks(failed=ticks)
        self._room.set()

    def _replace_dead_producer(self) -> None:
        """An idempotent producer that cannot keep its promise any more is given up."""
        self._dead = False
        old, self._producer = self._producer, self._new_producer()
        if old is not None:
            _log.warning("the producer could not go on and was replaced")
            old.purge()
            old.flush(CALL_TIMEOUT_S)

    def _schedule_poll(self) -> None:
        if self._poll_timer is None and (self._records or self._dead):
            silent = self._silent_polls > _SILENT_AFTER_POLLS
            wait = _SILENT_POLL_S if silent else _POLL_S
            self._poll_timer = self._loop.call_later(wait, self._poll)

    def _poll(self) -> None:
        self._poll_timer = None
        self._silent_polls += 1
        assert self._producer is not None
        self._producer.poll(0)
        if self._dead:
            self._replace_dead_producer()
        self._schedule_poll()


def malformed_error(number: int, reason: str) -> RequestFailedError:
    """Returns the error of a request that cannot be read."""
    return RequestFailedError(
        Code.INVALID_ARGUMENT,
        f"expected a MarketDataRequest, was not one (request {number}: {reason}); correct the "
        "sender",
        field="request",
    )


def _lost_error(reason: str, timeout_s: float) -> RequestFailedError:
    return RequestFailedError(
        Code.UNAVAILABLE,
        f"expected the broker to take ticks within {timeout_s:g} s, it did not ({reason}); open "
        "the stream again and send what is not acknowledged",
        retry_after_s=1.0,
    )
