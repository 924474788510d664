"""From what a request says about the start to a number for each partition."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grpc_bridge.fanout.errors import BadSelectionError, StartDeletedError
from mystocks.v1.market_pb2 import ResumeToken
from mystocks.v1.realtime_pb2 import SubscribeFeaturesRequest
from schemas.errors import InvalidInputError
from streams.kafka.feature_positions import (
    Marks,
    RowsDeletedError,
    ends_of,
    offset_of_row,
    offsets_since,
)

if TYPE_CHECKING:
    from grpc_bridge.fanout.feed import Feed

_RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a reader begins.

    Attributes:
        offsets: Next record of each partition.
        rows: Next row by partition, where it is known.
    """

    offsets: Mapping[int, int]
    rows: Mapping[int, int | None]


async def beginning_of(feed: Feed, request: SubscribeFeaturesRequest | None) -> Beginning | None:
    """Returns where a request wants to begin; None for now, after everything committed before.

    Args:
        feed: Of the set.
        request: Of which `start` is read; None begins with the next row that is committed.

    Raises:
        BadSelectionError: The token does not fit the topic.
        StartDeletedError: The rows that the token asks for are not in the topic.
        UnavailableError: The broker does not answer.
    """
    start = request.WhichOneof("start") if request is not None else None
    if request is None or start is None or (start == "earliest" and not request.earliest):
        await feed.caught_up(await feed.ends())
        return None
    marks = await feed.marks()
    if start == "resume":
        token = request.resume
        check_token(token, feed.topic, feed.topic_id.decode(), feed.partitions)
        beginning = await _resumed(feed, marks, token)
        await feed.caught_up(ends_of(marks))
        _check_rows(feed, beginning)
        return beginning
    if start == "since_ns":
        since_ns = request.since_ns
        offsets = await feed.past.run(
            lambda consumer: offsets_since(consumer, feed.topic, marks, since_ns)
        )
        return Beginning(offsets, {})
    return Beginning({p: low for p, (low, _) in marks.items()}, {})


def _check_rows(feed: Feed, beginning: Beginning) -> None:
    """Refuses rows that do not exist yet."""
    for partition, row in beginning.rows.items():
        next_row = feed.next_row.get(partition)
        if row is not None and next_row is not None and row > next_row:
            raise StartDeletedError(
                f"expected a row up to {next_row} of partition {partition} in {feed.topic}, was "
                f"{row}; give the token back as it came"
            )


def check_token(token: ResumeToken, topic: str, topic_id: str, partitions: int) -> None:
    """Checks a token against the topic.

    Raises:
        BadSelectionError: It is of another topic, or a number in it is not acceptable.
    """
    if token.topic_id and token.topic_id != topic_id:
        raise BadSelectionError(
            f"expected a position in the topic {topic} as it is now, was one from before it was "
            "deleted and created again, or of another topic; start from 'earliest'",
            f"{_RESUME}.topic_id",
        )
    seen = set()
    for i, place in enumerate(token.next):
        field = f"{_RESUME}.next[{i}]"
        if not 0 <= place.partition < partitions:
            raise BadSelectionError(
                f"expected a partition from 0 to {partitions - 1} of {topic}, was "
                f"{place.partition}; give the token back as it came",
                f"{field}.partition",
            )
        if place.partition in seen:
            raise BadSelectionError(
                f"expected each partition once, was {place.partition} twice; give the token back "
                "as it came",
                f"{field}.partition",
            )
        seen.add(place.partition)
        for name in ("row", "offset"):
            if place.HasField(name) and getattr(place, name) < 0:
                raise BadSelectionError(
                    f"expected at least 0, was {getattr(place, name)}; give the token back as it "
                    "came",
                    f"{field}.{name}",
                )


async def _resumed(feed: Feed, marks: Mapping[int, Marks], token: ResumeToken) -> Beginning:
    topic = feed.topic
    places = {place.partition: place for place in token.next}
    offsets: dict[int, int] = {}
    rows: dict[int, int | None] = {}
    for partition, (low, high) in marks.items():
        place = places.get(partition)
        offsets[partition] = low
        if place is None:
            continue
        if place.HasField("row"):
            rows[partition] = place.row
        if place.HasField("offset"):
            if not low <= place.offset <= high:
                raise StartDeletedError(
                    f"expected an offset from {low} to {high} of partition {partition} in "
                    f"{topic}, was {place.offset}; what is missing was deleted, start from "
                    "'earliest'"
                )
            offsets[partition] = place.offset
        elif place.HasField("row"):
            search = functools.partial(
                offset_of_row,
                topic=topic,
                partition=partition,
                row=place.row,
                marks=(low, high),
            )
            try:
                offsets[partition] = await feed.past.run(search)
            except RowsDeletedError as error:
                raise StartDeletedError(str(error)) from None
            except InvalidInputError as error:
                raise StartDeletedError(f"{error}; start from 'earliest'") from None
    return Beginning(offsets, rows)
