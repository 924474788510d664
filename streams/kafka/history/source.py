"""What the log has: identity and ends of a topic, and the rows of missing offsets."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource

from schemas.errors import InvalidInputError
from schemas.settings import Settings
from streams.kafka.admin import topic_id
from streams.kafka.bounded_read import TopicReader
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.feature_positions import offsets_since
from streams.kafka.history.columns import parse_record, rows_of
from streams.kafka.history.segments import Segment, build, empty

# Read ahead by librdkafka; more would only add to the memory of a reading.
_BUFFER_BYTES = 32 * 1024**2

Range = tuple[int, int]


@dataclass(slots=True)
class _Part:
    """Rows of one partition from `first` on, before `next`, that are not in a segment yet."""

    partition: int
    first: int
    next: int
    batches: list[Any] = field(default_factory=list)
    size: int = 0


class HistorySource:
    """A topic that is read for its history.

    Args:
        settings: Where Kafka is.
        topic: The topic.

    Attributes:
        topic: The topic.
        topic_id: Kafka's id of it.
        partitions: How many it has.

    Raises:
        InvalidInputError: The topic does not keep its records until they are deleted.
        KafkaUnavailableError: The topic is missing, or no broker answered.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self._reader = TopicReader(
            settings, topic, "history", check_crcs=False, buffer_bytes=_BUFFER_BYTES
        )
        try:
            # Each client takes 50 ms to connect, so they do it at once.
            with ThreadPoolExecutor(1) as pool:
                description = pool.submit(_describe, settings, topic)
                self.partitions = self._reader.partitions
                self.topic_id, policy = description.result()
        except KafkaException as error:
            self.close()
            raise KafkaUnavailableError(
                f"expected the description of topic {topic}, got none "
                f"({kafka_error(error).str()}); check the broker"
            ) from error
        except BaseException:
            self.close()
            raise
        if policy != "delete":
            self.close()
            raise InvalidInputError(
                f"expected a topic with cleanup.policy=delete, was {policy} (topic {topic}): what "
                "compaction removes is no history; name a market.bars.* or features.* topic"
            )

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
        self._reader.close()

    def spans(self) -> dict[int, Range]:
        """Returns oldest offset and last stable offset of every partition."""
        return {partition: self._reader.span(partition) for partition in range(self.partitions)}

    def starts(self, start_ns: int | None, spans: Mapping[int, Range]) -> dict[int, int]:
        """Returns, for each partition, an offset before which all event times are older.

        Args:
            start_ns: Nanoseconds since 1970-01-01 UTC; None is the oldest record.
            spans: As from `spans`.
        """
        if start_ns is None:
            return {partition: low for partition, (low, _) in spans.items()}
        try:
            return offsets_since(self._reader.client, self.topic, spans, start_ns)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected offsets of {self.topic} by time, got none "
                f"({kafka_error(error).str()}); check the broker"
            ) from error

    def fetch(self, gaps: Mapping[int, Sequence[Range]], segment_bytes: int) -> Iterator[Segment]:
        """Yields the rows of missing offsets as segments, which cover every offset asked for.

        Args:
            gaps: Ranges of offsets by partition, in order.
            segment_bytes: Records are collected up to this size, of all partitions together.
        """
        rounds = max(map(len, gaps.values()), default=0)
        for number in range(rounds):
            wanted = {p: ranges[number] for p, ranges in gaps.items() if number < len(ranges)}
            yield from self._fetch(wanted, segment_bytes)

    def _fetch(self, wanted: Mapping[int, Range], segment_bytes: int) -> Iterator[Segment]:
        parts = {p: _Part(p, first, first) for p, (first, _) in wanted.items()}
        for batch in self._reader.ranges(wanted):
            part = parts[batch.partition]
            for message in batch.messages:
                value, offset = message.value(), message.offset()
                if value is None:
                    continue
                rows = self._parse(batch.partition, offset, value)
                if rows and part.batches and rows[0].schema.names != part.batches[0].schema.names:
                    yield self._cut(part, offset)
                elif sum(p.size for p in parts.values()) + len(value) > segment_bytes:
                    # Of this partition all is known before this record, of another one less.
                    part.next = offset
                    largest = max(parts.values(), key=lambda p: p.size)
                    if largest.batches:
                        yield self._cut(largest, largest.next)
                part.batches += rows
                part.size += len(value)
                part.next = offset + 1
        for part in parts.values():
            end = wanted[part.partition][1]
            if part.first < end:
                yield self._cut(part, end)

    def _parse(self, partition: int, offset: int, value: bytes) -> list[Any]:
        try:
            return parse_record(value)
        except InvalidInputError as error:
            raise self._unreadable(f"{partition}:{offset}", error) from error

    def _cut(self, part: _Part, end: int) -> Segment:
        """Makes a segment of what is there; the part begins again at its end."""
        place = self.topic, self.topic_id, part.partition, part.first, end
        try:
            segment = build(rows_of(part.batches), *place) if part.batches else empty(*place)
        except InvalidInputError as error:
            raise self._unreadable(f"{part.partition}:{part.first}-{end}", error) from error
        part.first, part.batches, part.size = end, [], 0
        return segment

    def _unreadable(self, place: str, error: InvalidInputError) -> InvalidInputError:
        return InvalidInputError(
            f"{error} ({self.topic} {place}); history reads topics of blocks such as "
            "market.bars.1d and features.ticks"
        )


def _describe(settings: Settings, topic: str) -> tuple[str, str]:
    """Returns id and cleanup policy of a topic."""
    admin = AdminClient(settings.kafka.as_librdkafka() | {"log_level": 0})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource]
    return topic_id(admin, topic), config.result(CALL_TIMEOUT_S)["cleanup.policy"].value
