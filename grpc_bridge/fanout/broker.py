"""Questions about a topic: whether it is there, where it ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from grpc_bridge.fanout.errors import UnknownFeatureSetError
from grpc_bridge.fanout.past_reader import PastReader
from grpc_bridge.fanout.record import FeatureRecord
from schemas.errors import InvalidInputError, UnavailableError
from schemas.settings import Settings
from schemas.topics import features_topic
from streams.kafka.admin import id_text
from streams.kafka.errors import kafka_error
from streams.kafka.feature_positions import Marks, last_records, watermarks

_ANSWER_S = 10.0
_LEADERS_S = 2.0


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A features topic as it was found.

    Attributes:
        topic: Its name.
        topic_id: Its id.
        partitions: Their number.
        ends: End of each partition.
        next_row: Next row of each partition that has records.
        columns: Names of the features; empty while the topic is.
        set_hash: Identity of the computation of the newest record.
    """

    topic: str
    topic_id: str
    partitions: int
    ends: dict[int, int]
    next_row: dict[int, int]
    columns: tuple[str, ...]
    set_hash: str


class Broker:
    """Asks the broker without holding up the event loop.

    Args:
        settings: Where Kafka is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._admin = AdminClient(
            {**settings.kafka.as_librdkafka(), "log_level": 0, "reconnect.backoff.max.ms": 1000}
        )
        self._asking: dict[str, asyncio.Task[dict[int, Marks]]] = {}
        self._next: dict[str, asyncio.Task[dict[int, Marks]]] = {}

    async def describe(self, feature_set: str) -> tuple[str, int]:
        """Returns id and number of partitions of a feature set's topic.

        Raises:
            UnknownFeatureSetError: There is no such topic.
            UnavailableError: The broker does not answer.
        """
        topic = features_topic(feature_set)
        asked = self._admin.describe_topics(TopicCollection([topic]), request_timeout=_ANSWER_S)
        try:
            found = await asyncio.wrap_future(asked[topic])
        except KafkaException as error:
            if kafka_error(error).code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise UnknownFeatureSetError(
                    f"expected the feature set {feature_set!r}, there is no topic {topic}; start "
                    "role features for it, or create it with `mystocks topics apply`"
                ) from None
            raise self._unavailable(error) from None
        return id_text(found.topic_id), len(found.partitions)

    async def facts(self, feature_set: str, past: PastReader) -> TopicFacts:
        """Returns what is needed to read a topic from its end on.

        Raises:
            UnknownFeatureSetError: There is no such topic.
            UnavailableError: The broker does not answer.
        """
        topic = features_topic(feature_set)
        topic_id, partitions = await self.describe(feature_set)

        def look(consumer: Consumer) -> TopicFacts:
            marks = watermarks(consumer, topic, range(partitions))
            next_row: dict[int, int] = {}
            newest: tuple[int, tuple[str, ...], str] = (-1, (), "")
            for partition, mark in marks.items():
                for message in last_records(consumer, topic, partition, mark):
                    try:
                        record = FeatureRecord(message)
                        end = max(next_row.get(partition, 0), record.next_row)
                        made = (message.timestamp()[1], record.columns().names, record.set_hash)
                    except InvalidInputError:
                        continue
                    next_row[partition] = end
                    newest = max(newest, made)
            ends = {p: high for p, (_, high) in marks.items()}
            return TopicFacts(topic, topic_id, partitions, ends, next_row, newest[1], newest[2])

        began = time.monotonic()
        while True:
            try:
                return await past.run(look)
            except UnavailableError:
                # A topic that was just created may be without leaders for a moment.
                if time.monotonic() - began > _LEADERS_S:
                    raise
                await asyncio.sleep(_LEADERS_S / 10)

    async def marks(self, topic: str, partitions: int, past: PastReader) -> dict[int, Marks]:
        """Returns beginning and end of each partition at some time after this call began.

        Callers at the same time share an answer, except one that was asked for before they came.

        Raises:
            UnavailableError: The broker does not answer.
        """
        task = self._next.get(topic)
        if task is None:
            before = self._asking.get(topic)
            task = asyncio.ensure_future(self._ask(topic, partitions, past, before))
            self._next[topic] = task
        return await asyncio.shield(task)

    async def _ask(
        self,
        topic: str,
        partitions: int,
        past: PastReader,
        before: asyncio.Task[dict[int, Marks]] | None,
    ) -> dict[int, Marks]:
        if before is not None:
            await asyncio.wait((before,))
        self._asking[topic] = self._next.pop(topic)

        # The administration client's `list_offsets` fails for minutes after a leader has changed.
        return await past.run(lambda consumer: watermarks(consumer, topic, range(partitions)))

    def _unavailable(self, error: KafkaException) -> UnavailableError:
        return UnavailableError(
            f"expected Kafka at {self.settings.kafka.bootstrap_servers} to answer, did not "
            f"({kafka_error(error).str()}); check the broker"
        )
