"""How far a group has come, as its commits say."""

from confluent_kafka import KafkaException, TopicPartition

from schemas.settings import Settings
from streams.kafka.clients import CALL_TIMEOUT_S, offsets_client
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.patience import patiently
from streams.kafka.snapshots import CommitMark


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
        found = patiently(lambda left_s: consumer.committed(places, timeout=left_s), CALL_TIMEOUT_S)
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected the offsets of group {group}, got none ({kafka_error(error).str()}); check "
            "the broker"
        ) from error
    finally:
        consumer.close()
    marks = {p.partition: CommitMark.decode(p.metadata) for p in found if p.offset >= 0}
    return {partition: mark for partition, mark in marks.items() if mark is not None}
