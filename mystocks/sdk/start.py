"""From "where to start" to one offset per partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mystocks.sdk.errors import RowGapError
from mystocks.sdk.position import Position
from mystocks.sdk.tick import time_to_ns
from schemas import headers
from schemas.errors import InvalidInputError, UnavailableError
from streams.kafka.clients import CALL_TIMEOUT_S

# Event times may be this much newer than the timestamp of their record.
_TIMESTAMP_SLACK_MS = 3_600_000

Start = str | datetime | Position | Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read.

    Attributes:
        rows: Last row already processed, by partition.
        offsets: First offset to read, by partition.
        ends: Offset after the last committed record, by partition.
        since_ns: Rows with an older event time are left out; None for no such bound.
    """

    rows: Mapping[int, int]
    offsets: Mapping[int, int]
    ends: Mapping[int, int]
    since_ns: int | None


def parse(start: Start, feature_set: str) -> str | int | Position:
    """Returns "latest", "earliest", an event time in nanoseconds (UTC), or a position.

    Raises:
        InvalidInputError: `start` is none of these, or belongs to another feature set.
    """
    if isinstance(start, datetime):
        return time_to_ns(start, "start")
    if isinstance(start, Mapping):
        return Position(feature_set, {int(p): int(row) for p, row in start.items()})
    if isinstance(start, str):
        if start in ("latest", "earliest"):
            return start
        start = Position.parse(start)
    if start.set != feature_set:
        raise InvalidInputError(
            f"expected a position in the set {feature_set!r}, was one in {start.set!r} (start); "
            "subscribe to that set"
        )
    return start


def resolve(
    consumer: Consumer, topic: str, topic_id: str, partitions: int, start: str | int | Position
) -> Plan:
    """Turns a start into offsets.

    Raises:
        InvalidInputError: The position belongs to a topic that no longer exists, or to more
            partitions than the topic has.
        RowGapError: The row to resume after was deleted.
    """
    marks = {
        p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=CALL_TIMEOUT_S)
        for p in range(partitions)
    }
    lows = {p: low for p, (low, _) in marks.items()}
    ends = {p: high for p, (_, high) in marks.items()}
    if start == "latest":
        return Plan({}, ends, ends, None)
    if start == "earliest":
        return Plan({}, lows, ends, None)
    if isinstance(start, int):
        # A time before 1970 is before every tick.
        start_ms = max(0, start // 1_000_000 - _TIMESTAMP_SLACK_MS)
        found = consumer.offsets_for_times(
            [TopicPartition(topic, p, start_ms) for p in lows], timeout=CALL_TIMEOUT_S
        )
        # A negative offset means that no record is that new.
        offsets = {t.partition: t.offset if t.offset >= 0 else ends[t.partition] for t in found}
        return Plan({}, offsets, ends, start)
    assert isinstance(start, Position)
    _check_position(start, topic, topic_id, partitions)
    offsets = {
        p: _offset_of_row(consumer, topic, p, start.rows[p] + 1, marks[p])
        if p in start.rows
        else start.offsets.get(p, lows[p])
        for p in range(partitions)
    }
    return Plan(dict(start.rows), offsets, ends, start.since_ns)


def _check_position(position: Position, topic: str, topic_id: str, partitions: int) -> None:
    if position.topic_id and position.topic_id != topic_id:
        raise InvalidInputError(
            f"expected a position in the topic {topic} as it is now, was one from before the topic "
            "was deleted and created again (start); start from 'earliest'"
        )
    unknown = sorted(p for p in {*position.rows, *position.offsets} if not 0 <= p < partitions)
    if unknown:
        raise InvalidInputError(
            f"expected partitions 0 to {partitions - 1} of {topic}, was {unknown[0]} (start); "
            "correct the position"
        )


def _offset_of_row(
    consumer: Consumer, topic: str, partition: int, row: int, marks: tuple[int, int]
) -> int:
    """Offset to start at so that no row from `row` on is missed, found by bisection.

    Rows rise by one along the log, apart from repetitions by an at-least-once job; so wherever
    ``first_row`` passes `row` from below, all rows from there on follow.
    """
    low, high = marks
    if low == high:
        return low
    place, first_row = _first_row_from(consumer, topic, partition, low)
    if first_row is None:
        return high
    if first_row > row:
        raise RowGapError(
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


def _first_row_from(
    consumer: Consumer, topic: str, partition: int, offset: int
) -> tuple[int, int | None]:
    """The first committed record at or after `offset`: its offset and first row (None: no more)."""
    consumer.assign([TopicPartition(topic, partition, offset)])
    message: Message | None = consumer.poll(CALL_TIMEOUT_S)
    if message is None:
        raise UnavailableError(f"expected a record of {topic} in time, was none; check the broker")
    error = message.error()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF:
            return offset, None
        raise KafkaException(error)
    return message.offset(), first_row_of(message)


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
