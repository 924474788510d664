"""How far a group has come, as its commits say."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.settings import Settings
from streams.kafka.clients import CALL_TIMEOUT_S, offsets_client
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.snapshots import CommitMark

_RETRY_S = 0.1
_FOR_A_MOMENT = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)


def committed_marks(
    settings: Settings, group: str, source: str, partitions: int
) -> dict[int, CommitMark]:
    """Returns what the last commit of each partition says; none where there was no commit.

    Args:
        settings: Where Kafka is.
        group: Consumer group; it is not joined.
        source: Topic that it consumes.
        partitions: How many partitions that has.

    Raises:
        KafkaUnavailableError: The broker does not answer.
    """
    consumer = offsets_client(settings, group)
    places = [TopicPartition(source, p) for p in range(partitions)]
    try:
        found = _committed(consumer, places)
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected the offsets of group {group}, got none ({kafka_error(error).str()}); check "
            "the broker"
        ) from error
    finally:
        consumer.close()
    marks = {p.partition: CommitMark.decode(p.metadata) for p in found if p.offset >= 0}
    return {partition: mark for partition, mark in marks.items() if mark is not None}


def _committed(consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            found: list[TopicPartition] = consumer.committed(places, timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            # A broker that has just come back says so while it loads the group.
            if kafka_error(error).code() not in _FOR_A_MOMENT or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            return found
