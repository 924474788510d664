"""Where a subscription starts and stands, between a user's words and the bridge's messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from mystocks.sdk.position import Position
from mystocks.sdk.tick import time_to_ns
from mystocks.v1.market_pb2 import NextPosition, ResumeToken
from mystocks.v1.realtime_pb2 import SubscribeFeaturesRequest
from schemas.errors import InvalidInputError

Start = str | datetime | Position | Mapping[int, int]


def set_start(request: SubscribeFeaturesRequest, start: Start) -> Position | None:
    """Writes `start` into a request; returns the position if it is one.

    Args:
        request: With the name of the feature set; where that is empty, a position's set is taken.
        start: ``"latest"``, ``"earliest"``, an aware datetime, a position or its text, or a mapping
            of partition to the last row already processed.

    Raises:
        InvalidInputError: `start` is none of these, or belongs to another feature set.
    """
    feature_set = request.selection.feature_set
    if isinstance(start, datetime):
        request.since_ns = time_to_ns(start, "start")
        return None
    if isinstance(start, Mapping):
        start = Position(feature_set, {int(p): int(row) for p, row in start.items()})
    if isinstance(start, str):
        if start == "latest":
            return None
        if start == "earliest":
            request.earliest = True
            return None
        start = Position.parse(start)
    if not isinstance(start, Position):
        raise InvalidInputError(
            "expected 'latest', 'earliest', a datetime or a position, was "
            f"{start!r:.80} (start); correct it"
        )
    if not feature_set:
        request.selection.feature_set = start.set
    elif start.set not in ("", feature_set):
        raise InvalidInputError(
            f"expected a position in the set {feature_set!r}, was one in {start.set!r} (start); "
            "subscribe to that set"
        )
    request.resume.CopyFrom(token_of(start))
    return start


def token_of(position: Position) -> ResumeToken:
    """Returns a position as the bridge takes it."""
    token = ResumeToken(topic_id=position.topic_id)
    for partition in sorted({*position.rows, *position.offsets}):
        place = NextPosition(partition=partition)
        if partition in position.rows:
            place.row = position.rows[partition] + 1
        if partition in position.offsets:
            place.offset = position.offsets[partition]
        token.next.append(place)
    return token


def position_of(token: ResumeToken, feature_set: str, since_ns: int | None = None) -> Position:
    """Returns a token of the bridge as a position.

    Args:
        token: As the bridge sent it.
        feature_set: Name of the feature set.
        since_ns: Rows with an older event time (UTC, ns) are left out; None for no such bound.
    """
    places = token.next
    return Position(
        feature_set,
        # Before row 0 there is no last row; the offset alone says where that is.
        {p.partition: p.row - 1 for p in places if p.HasField("row") and p.row > 0},
        {p.partition: p.offset for p in places if p.HasField("offset")},
        token.topic_id,
        since_ns,
    )
