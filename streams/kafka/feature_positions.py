"""From rows and times of a numbered topic to offsets, always as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas import headers
from schemas.errors import InvalidInputError, MyStocksError, UnavailableError
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end

# Event times may be this much newer than the timestamp of their record.
TIMESTAMP_SLACK_MS = 3_600_000

Marks = tuple[int, int]


class RowsDeletedError(MyStocksError):
    """The rows to go on with were deleted from the topic."""


def watermarks(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, Marks]:
    """Returns the first offset and the end of each partition, as far as it is committed.

    Raises:
        KafkaException: The broker did not answer.
    """
    return {
        p: first_and_end(consumer, TopicPartition(topic, p), CALL_TIMEOUT_S) for p in partitions
    }


def ends_of(marks: Mapping[int, Marks]) -> dict[int, int]:
    """Returns the end of each partition."""
    return {partition: end for partition, (_, end) in marks.items()}


def offsets_since(
    consumer: Consumer, topic: str, marks: Mapping[int, Marks], since_ns: int
) -> dict[int, int]:
    """Returns offsets from which on all rows with that event time or a later one follow.

    Args:
        consumer: Any consumer.
        topic: The topic.
        marks: First offset and end by partition.
        since_ns: Event time, nanoseconds since 1970-01-01 UTC.

    Raises:
        KafkaException: The broker did not answer.
    """
    # A time before 1970 is before every tick.
    start_ms = max(0, since_ns // 1_000_000 - TIMESTAMP_SLACK_MS)
    found = consumer.offsets_for_times(
        [TopicPartition(topic, p, start_ms) for p in marks], timeout=CALL_TIMEOUT_S
    )
    # A negative offset means that no record is that new.
    return {t.partition: t.offset if t.offset >= 0 else marks[t.partition][1] for t in found}


def offset_of_row(consumer: Consumer, topic: str, partition: int, row: int, marks: Marks) -> int:
    """Offset to start at so that no row from `row` on is missed, found by bisection.

    Rows rise by one along the log, apart from repetitions by an at-least-once job; so wherever
    ``first_row`` passes `row` from below, all rows from there on follow.

    Args:
        consumer: Outside a group; its assignment is replaced.
        topic: The topic.
        partition: The partition.
        row: The next row to read.
        marks: First offset and end of the partition.

    Raises:
        RowsDeletedError: The row was deleted.
        KafkaException: The broker refused.
        UnavailableError: The broker did not answer.
    """
    low, high = marks
    if low == high:
        return low
    place, first_row = _first_row_from(consumer, topic, partition, low)
    if first_row is None:
        return high
    if first_row > row:
        raise RowsDeletedError(
            f"expected row {row} of partition {partition} in {topic}, the oldest one is "
            f"{first_row}; rows before it were deleted, start from 'earliest'"
        )
    low = place
    while high - low > 1:
        middle = (low + high) // 2
        place, first_row = _first_row_from(consumer, topic, partition, middle)
        if first_row is None or first_row > row:
            high = middle
        else:
            low = place
            high = max(high, low + 1)
    return low


def last_records(
    consumer: Consumer, topic: str, partition: int, marks: Marks, look_back: int = 64
) -> list[Message]:
    """Returns the newest committed records of a partition, oldest first, at least one if it can.

    Several, since after a restart an at-least-once job repeats rows: the last record need not have
    the newest ones.

    Args:
        consumer: Outside a group; its assignment is replaced.
        topic: The topic.
        partition: The partition.
        marks: Its first offset and its end.
        look_back: How many offsets to begin with; so many times more with each further look.

    Raises:
        KafkaException: The broker refused.
        UnavailableError: The broker did not answer.
    """
    low, high = marks
    back = look_back
    records: list[Message] = []
    start = high
    while start > low and not records:
        start = max(low, high - back)
        consumer.assign([TopicPartition(topic, partition, start)])
        while (message := _poll(consumer, topic)) is not None and message.offset() < high:
            records.append(message)
        back *= look_back
    return records


def first_row_of(message: Message) -> int:
    """The row number that the header of a features record states.

    Raises:
        InvalidInputError: The record has no such header.
    """
    for name, value in message.headers() or ():
        if name == headers.FIRST_ROW and value.isdigit():
            return int(value)
    raise InvalidInputError(
        f"expected the header {headers.FIRST_ROW}, was none "
        f"({message.topic()}, partition {message.partition()}, offset {message.offset()}); "
        "is this a features topic?"
    )


def _first_row_from(
    consumer: Consumer, topic: str, partition: int, offset: int
) -> tuple[int, int | None]:
    """The first committed record at or after `offset`: its offset and first row (None: no more)."""
    consumer.assign([TopicPartition(topic, partition, offset)])
    message = _poll(consumer, topic)
    return (offset, None) if message is None else (message.offset(), first_row_of(message))


def _poll(consumer: Consumer, topic: str) -> Message | None:
    """The next record; None at the end of the partition."""
    message: Message | None = consumer.poll(CALL_TIMEOUT_S)
    if message is None:
        raise UnavailableError(f"expected a record of {topic} in time, was none; check the broker")
    error = message.error()
    if error is None:
        return message
    if error.code() == KafkaError._PARTITION_EOF:
        return None
    raise KafkaException(error)
