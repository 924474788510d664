"""Reads one partition of replies in a thread and hands over those that are ours."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas import headers as names
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.errors import kafka_error

# Bounds how long a stop takes.
_IDLE_S = 0.1
_BATCH = 500
_RETRY_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        value: The reply.
        failed: Whether it says why there is no answer.
    """

    value: bytes
    failed: bool


class ReplyReader:
    """Reads from where the partition ends at the start.

    Args:
        consumer: In no group.
        place: Topic and partition of the replies.
        requester: Replies to others are passed over.
        deliver: Called in the thread with what came together.
        between: Called in the thread after every poll.
    """

    def __init__(
        self,
        consumer: Consumer,
        place: TopicPartition,
        requester: bytes,
        deliver: Callable[[Sequence[tuple[bytes, Reply]]], None],
        between: Callable[[], object],
    ) -> None:
        self._consumer = consumer
        self._place = place
        self._requester = requester
        self._deliver = deliver
        self._between = between
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)

    def start(self) -> None:
        """Finds the end of the partition and begins to read there.

        Raises:
            KafkaException: The broker did not say where the partition ends.
        """
        self._place.offset = first_and_end(self._consumer, self._place, CALL_TIMEOUT_S)[1]
        self._consumer.assign([self._place])
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and the consumer."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            messages = self._consumer.consume(1, _IDLE_S)
            if messages:
                messages += self._consumer.consume(_BATCH, 0)
                replies = [found for found in map(self._reply, messages) if found is not None]
                if replies:
                    self._deliver(replies)
            self._between()

    def _reply(self, message: Message) -> tuple[bytes, Reply] | None:
        error = message.error()
        if error is not None:
            self._check(error)
            return None
        headers = dict(message.headers() or ())
        if headers.get(names.REQUESTER) != self._requester:
            return None
        request_id = headers.get(names.REQUEST_ID)
        if request_id is None:
            return None
        return request_id, Reply(message.value() or b"", names.FAILURE in headers)

    def _check(self, error: KafkaError) -> None:
        """Moves on where the position is gone; librdkafka tries the rest again by itself."""
        if error.code() not in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return
        try:
            self._place.offset = first_and_end(self._consumer, self._place, CALL_TIMEOUT_S)[0]
        except KafkaException as failure:
            _log.warning("replies cannot be read", error=kafka_error(failure).str())
            self._stopping.wait(_RETRY_S)
            return
        # The topic was deleted and made again: what is in it now is newer than our position.
        _log.warning("replies are read from their start", offset=self._place.offset)
        self._consumer.assign([self._place])
