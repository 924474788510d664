"""Where a partition begins and ends, as numbers."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from streams.kafka.errors import kafka_error

_RETRY_S = 0.02
# A broker that does not say for so long is away; what others say comes with its silence.
_ANSWER_TIMEOUT_S = 2.0
# While a partition is new or moves to another broker, or its broker restarts.
_FOR_A_MOMENT = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
    }
)


def first_and_end(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Returns the offset of the oldest record and that after the newest committed one.

    Args:
        consumer: Any; its position stays as it is.
        place: Topic and partition.
        timeout_s: How long to try.

    Raises:
        KafkaException: The broker did not say in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            low, high = consumer.get_watermark_offsets(place, max(left, _RETRY_S))
            return low, high
        except KafkaException as error:
            code = kafka_error(error).code()
            if left <= 0 or code not in _FOR_A_MOMENT:
                raise
            if code == KafkaError._UNKNOWN_PARTITION:
                # The client keeps what it was told while the partition had no leader, for up to
                # 15 minutes, unless it is asked to ask again.
                with contextlib.suppress(KafkaException):
                    consumer.list_topics(place.topic, timeout=left)
            time.sleep(_RETRY_S)


class AdminLogEnds:
    """Asks for ends in the background; see `streams.kafka.ports.LogEnds`.

    Args:
        admin: Any.
        topic: Of the partitions.
    """

    def __init__(self, admin: AdminClient, topic: str) -> None:
        self._admin = admin
        self._topic = topic
        self._asked: dict[int, Future[Any]] = {}

    def ask(self, partitions: Sequence[int]) -> None:
        """Asks for the ends that these partitions have from now on."""
        self._asked = {}
        if partitions:
            newest = OffsetSpec.latest()
            found = self._admin.list_offsets(
                {TopicPartition(self._topic, number): newest for number in partitions},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_ANSWER_TIMEOUT_S,
            )
            self._asked = {place.partition: future for place, future in found.items()}

    def answer(self) -> dict[int, int] | None:
        """Returns what the brokers said, None as long as they have time."""
        if not all(future.done() for future in self._asked.values()):
            return None
        return {
            number: int(future.result().offset)
            for number, future in self._asked.items()
            if future.exception() is None
        }
