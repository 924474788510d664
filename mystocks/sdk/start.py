"""From "where to start" to one offset per partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from confluent_kafka import Consumer

from mystocks.sdk.errors import RowGapError
from mystocks.sdk.position import Position
from mystocks.sdk.tick import time_to_ns
from schemas.errors import InvalidInputError
from streams.kafka.feature_positions import (
    RowsDeletedError,
    offset_of_row,
    offsets_since,
    watermarks,
)

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
    if start.set not in ("", feature_set):
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
    marks = watermarks(consumer, topic, range(partitions))
    lows = {p: low for p, (low, _) in marks.items()}
    ends = {p: high for p, (_, high) in marks.items()}
    if start == "latest":
        return Plan({}, ends, ends, None)
    if start == "earliest":
        return Plan({}, lows, ends, None)
    if isinstance(start, int):
        offsets = offsets_since(consumer, topic, marks, start)
        return Plan({}, offsets, ends, start)
    assert isinstance(start, Position)
    _check_position(start, topic, topic_id, partitions)
    try:
        offsets = {
            p: offset_of_row(consumer, topic, p, start.rows[p] + 1, marks[p])
            if p in start.rows
            else start.offsets.get(p, lows[p])
            for p in range(partitions)
        }
    except RowsDeletedError as error:
        raise RowGapError(str(error)) from None
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
