"""Where a partition begins and ends, as numbers."""

import contextlib
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.kafka.errors import kafka_error

_RETRY_S = 0.02
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
