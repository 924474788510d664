"""Reading a topic as it is now: from a position to the end that it had at the call."""

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.settings import Settings
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S, reader
from streams.kafka.errors import KafkaUnavailableError, kafka_error

_MESSAGES_PER_POLL = 1000
_POLL_S = 0.2


def read_to_end(settings: Settings, topic: str, name: str) -> Iterator[Message]:
    """Yields the committed messages of a topic, partition by partition, in offset order.

    Args:
        settings: Where Kafka is.
        topic: Topic to read, from its oldest message to its end at the call.
        name: Of the reader, for the broker's logs.

    Raises:
        KafkaUnavailableError: The topic is missing, or the broker does not answer.
    """
    partitions = partition_count(admin_client(settings), topic)
    consumer = reader(settings, name)
    try:
        spans = {p: _span(consumer, topic, p) for p in range(partitions)}
        for partition, (low, high) in spans.items():
            yield from _read(consumer, topic, partition, low, high)
    finally:
        consumer.close()


def read_one(settings: Settings, topic: str, partition: int, offset: int) -> Message | None:
    """Returns the message at an offset, or None where it is not in the log any more."""
    consumer = reader(settings, "one")
    try:
        low, high = _span(consumer, topic, partition)
        if not low <= offset < high:
            return None
        for message in _read(consumer, topic, partition, offset, offset + 1):
            return message if message.offset() == offset else None
        return None
    finally:
        consumer.close()


def _span(consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    try:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=CALL_TIMEOUT_S
        )
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected the offsets of {topic} {partition}, got none "
            f"({kafka_error(error).str()}); check the broker"
        ) from error
    return low, high


def _read(consumer: Consumer, topic: str, partition: int, low: int, high: int) -> Iterator[Message]:
    if low >= high:
        return
    consumer.assign([TopicPartition(topic, partition, low)])
    while True:
        for message in consumer.consume(_MESSAGES_PER_POLL, _POLL_S):
            error = message.error()
            if error is None:
                if message.offset() >= high:
                    return
                yield message
                if message.offset() >= high - 1:
                    return
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                raise KafkaUnavailableError(
                    f"expected to read {topic} {partition}, was refused ({error.str()}); "
                    "check the broker"
                )
