"""Where a partition begins and ends, as numbers."""

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.kafka.errors import kafka_error
from streams.kafka.patience import patiently

# A broker that does not say for so long is away; what others say comes with its silence.
_ANSWER_TIMEOUT_S = 2.0


def first_and_end(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Returns the offset of the oldest record and that after the newest committed one.

    Args:
        consumer: Any; its position stays as it is.
        place: Topic and partition.
        timeout_s: How long to try.

    Raises:
        KafkaException: The broker did not say in time.
    """

    def ask(left_s: float) -> tuple[int, int]:
        try:
            low, high = consumer.get_watermark_offsets(place, left_s)
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError._UNKNOWN_PARTITION:
                # The client keeps what it was told while the partition had no leader, for up to
                # 15 minutes, unless it is asked to ask again.
                with contextlib.suppress(KafkaException):
                    consumer.list_topics(place.topic, timeout=left_s)
            raise
        return low, high

    return patiently(ask, timeout_s)


class BackgroundLogEnds:
    """Asks for ends in a thread; see `streams.kafka.ports.LogEnds`.

    Args:
        consumer: Of committed records; used by the thread alone.
        topic: Of the partitions.
    """

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"ends of {topic}")
        self._asked: Future[dict[int, int]] | None = None

    def ask(self, partitions: Sequence[int]) -> None:
        """Asks for the ends that these partitions have from now on."""
        self._asked = self._pool.submit(self._ends, tuple(partitions)) if partitions else None

    def answer(self) -> dict[int, int] | None:
        """Returns what the brokers said, None as long as they have time."""
        if self._asked is None:
            return {}
        return self._asked.result() if self._asked.done() else None

    def _ends(self, partitions: Sequence[int]) -> dict[int, int]:
        found = {}
        deadline = time.monotonic() + _ANSWER_TIMEOUT_S
        for number in partitions:
            left = max(deadline - time.monotonic(), 0.0)
            with contextlib.suppress(KafkaException):
                place = TopicPartition(self._topic, number)
                found[number] = first_and_end(self._consumer, place, left)[1]
        return found
