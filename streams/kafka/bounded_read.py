"""Reading a topic as it is now: from a position to the end that it had at the call."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.settings import Settings
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S, reader
from streams.kafka.errors import KafkaUnavailableError, kafka_error

_MESSAGES_PER_POLL = 1000
_POLL_S = 0.2


class TopicReader:
    """Reads the committed messages of a topic, one partition at a time, checking their CRCs.

    Args:
        settings: Where Kafka is.
        topic: Topic to read.
        name: Of the reader, for the broker's logs.

    Attributes:
        partitions: How many the topic has.

    Raises:
        KafkaUnavailableError: The topic is missing, or the broker does not answer.
    """

    def __init__(self, settings: Settings, topic: str, name: str) -> None:
        self.partitions = partition_count(admin_client(settings), topic)
        self._settings = settings
        self._topic = topic
        self._name = name
        self._consumer: Consumer | None = None
        self._forks: list[TopicReader] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        for other in self._forks:
            other.close()
        self._forks.clear()

    def fork(self) -> "TopicReader":
        """Returns a reader of the same topic, to read two places in turn; closed with this one."""
        self._forks.append(TopicReader(self._settings, self._topic, self._name))
        return self._forks[-1]

    def span(self, partition: int) -> tuple[int, int]:
        """Returns the offsets of the oldest message and behind the newest one.

        Raises:
            KafkaUnavailableError: The broker does not answer.
        """
        try:
            low, high = self._client().get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=CALL_TIMEOUT_S
            )
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected the offsets of {self._topic} {partition}, got none "
                f"({kafka_error(error).str()}); check the broker"
            ) from error
        return low, high

    def read(
        self, partition: int, start: int | None = None, end: int | None = None
    ) -> Iterator[Message]:
        """Yields messages in offset order.

        Args:
            partition: Which partition.
            start: First offset; None is the oldest.
            end: Offset to stop before; None is the end of the log at this call.

        Raises:
            KafkaUnavailableError: The broker refuses, or what was there is damaged.
        """
        low, high = self.span(partition)
        first = low if start is None else max(start, low)
        last = high if end is None else min(end, high)
        if first >= last:
            return
        client = self._client()
        client.assign([TopicPartition(self._topic, partition, first)])
        while True:
            for message in client.consume(_MESSAGES_PER_POLL, _POLL_S):
                error = message.error()
                if error is None:
                    if message.offset() >= last:
                        return
                    yield message
                    if message.offset() >= last - 1:
                        return
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise KafkaUnavailableError(
                        f"expected to read {self._topic} {partition}, was refused "
                        f"({error.str()}); check the broker"
                    )

    def _client(self) -> Consumer:
        if self._consumer is None:
            self._consumer = reader(self._settings, self._name, check_crcs=True)
        return self._consumer
