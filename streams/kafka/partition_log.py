"""Reads partitions of a topic from their oldest record to where they end at the call."""

from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.kafka.batch import PartitionBatch
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.errors import KafkaUnavailableError, kafka_error

# Messages taken from librdkafka at once.
_BATCH = 10_000
# Left to librdkafka, which tries again; the caller's deadline ends that.
_PASSING = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})
# How often the caller's deadline is looked at while nothing comes.
_POLL_S = 0.1


class PartitionLog:
    """The records of one topic; an instance serves one thread.

    Args:
        consumer: Outside any group, `read_committed`, reports the end of a partition
            (`streams.kafka.clients.reader`).
        topic: Name of the topic.
    """

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    def partitions(self) -> int:
        """Returns how many partitions the topic has; 0 where there is no such topic.

        Raises:
            KafkaUnavailableError: No broker answered.
        """
        try:
            found = self._consumer.list_topics(self._topic, CALL_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise self._unavailable(kafka_error(error)) from error
        return 0 if found.error is not None else len(found.partitions)

    def batches(self, partition: int, remaining_s: Callable[[], float]) -> Iterator[PartitionBatch]:
        """Yields the records of a partition in order.

        Args:
            partition: Its number.
            remaining_s: How long the caller still waits, in seconds.

        Raises:
            KafkaUnavailableError: No broker answered, or not all was read in time.
        """
        place = TopicPartition(self._topic, partition)
        try:
            first, end = first_and_end(self._consumer, place, min(remaining_s(), CALL_TIMEOUT_S))
        except KafkaException as error:
            raise self._unavailable(kafka_error(error)) from error
        if first >= end:
            return
        place.offset = first
        self._consumer.assign([place])
        try:
            done = False
            while not done:
                if remaining_s() <= 0:
                    raise KafkaUnavailableError(
                        f"expected to read {self._topic}, partition {partition}, up to offset "
                        f"{end} in time, was at {first}; allow more time"
                    )
                polled = self._consumer.consume(1, _POLL_S)
                messages, done = self._until(end, polled + self._consumer.consume(_BATCH, 0))
                if messages:
                    first = messages[-1].offset() + 1
                    yield PartitionBatch(partition, messages)
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Ends the consumer."""
        self._consumer.close()

    def _until(self, end: int, polled: list[Message]) -> tuple[list[Message], bool]:
        """Returns the records before offset `end`, and whether there are no more of them."""
        messages: list[Message] = []
        for message in polled:
            error = message.error()
            if error is None:
                if message.offset() >= end:
                    return messages, True
                messages.append(message)
                if message.offset() + 1 == end:
                    return messages, True
            elif error.code() == KafkaError._PARTITION_EOF:
                if message.offset() >= end:
                    return messages, True
            elif error.code() not in _PASSING and not error.retriable():
                raise self._unavailable(error)
        return messages, False

    def _unavailable(self, error: KafkaError) -> KafkaUnavailableError:
        return KafkaUnavailableError(
            f"expected to read {self._topic}, was refused ({error.str()}); try again"
        )
