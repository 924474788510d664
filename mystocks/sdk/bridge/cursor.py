"""What a subscription has received and how much of it was taken: its position, exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from mystocks.sdk.bridge.feature_position import position_of, token_of
from mystocks.sdk.errors import RowGapError
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.position import Position
from mystocks.sdk.rows import FeatureRow
from mystocks.v1.market_pb2 import FeatureBlock, NextPosition, ResumeToken
from mystocks.v1.realtime_pb2 import SubscribeFeaturesResponse


class Cursor:
    """Rows of responses, one by one or frame by frame, each identity once.

    Args:
        feature_set: Name of the feature set; empty until the first block tells it.
        start: Where the subscription starts, if that is a position.
        since_ns: Rows with an older event time (UTC, ns) are left out; None for no such bound.
        every_row: Whether the bridge sends every row; else rows may be missing, and the position
            advances only by whole responses.
        whole: Whether the bridge leaves out no rows, so that a gap is an error.
    """

    def __init__(
        self,
        feature_set: str,
        start: Position | None,
        since_ns: int | None,
        *,
        every_row: bool,
        whole: bool,
    ) -> None:
        self._set = feature_set
        self._since_ns = start.since_ns if start is not None else since_ns
        self._every_row = every_row
        self._whole = whole and every_row and self._since_ns is None
        self._places: dict[int, NextPosition] = {}
        self._topic_id = ""
        self._frames: deque[FeatureFrame] = deque()
        self._rows: Iterator[FeatureRow] | None = None
        self._taken = 0  # rows of the first frame
        # The token of the response that the frames are from; it holds once they are all taken.
        self._after: ResumeToken | None = None
        if start is not None:
            self._advance(token_of(start))

    @property
    def started(self) -> bool:
        """Whether it is known where the subscription stands."""
        return bool(self._places)

    @property
    def has_rows(self) -> bool:
        """Whether received rows wait to be taken."""
        return bool(self._frames)

    @property
    def token(self) -> ResumeToken:
        """Where to go on after the rows taken so far."""
        return ResumeToken(
            topic_id=self._topic_id, next=[self._places[p] for p in sorted(self._places)]
        )

    @property
    def position(self) -> Position:
        """The token as a position."""
        return position_of(self.token, self._set, self._since_ns)

    def accept(self, response: SubscribeFeaturesResponse) -> None:
        """Takes over a response, when all rows of the one before were taken.

        Raises:
            BridgeError: A block is malformed.
            RowGapError: Rows between the last one and those of the response are missing.
        """
        assert not self._frames
        expected = {p: place.row for p, place in self._places.items() if place.HasField("row")}
        for block in response.blocks:
            frame = self._new_rows(block, expected)
            if len(frame):
                self._frames.append(frame)
        if response.HasField("resume"):
            self._after = response.resume
            self._topic_id = response.resume.topic_id or self._topic_id
        self._settle()

    def next_row(self) -> FeatureRow | None:
        """Takes a row; None where none is left."""
        if not self._frames:
            return None
        if self._rows is None:
            frame = self._frames[0]
            self._rows = iter(frame.part(self._taken) if self._taken else frame)
        row = next(self._rows)
        self._taken += 1
        if self._every_row:
            self._next_row_of(row.partition, row.row + 1)
        if self._taken == len(self._frames[0]):
            self._finish_frame()
        return row

    def next_frame(self, limit: int | None = None) -> FeatureFrame | None:
        """Takes what is left of a frame, at most `limit` rows; None where none is left."""
        if not self._frames:
            return None
        frame = self._frames[0]
        stop = len(frame) if limit is None else min(len(frame), self._taken + limit)
        part = frame.part(self._taken, stop)
        self._taken, self._rows = stop, None
        if self._every_row:
            self._next_row_of(part.partition, part.rows[-1] + 1)
        if stop == len(frame):
            self._finish_frame()
        return part

    def _finish_frame(self) -> None:
        self._frames.popleft()
        self._taken, self._rows = 0, None
        self._settle()

    def _settle(self) -> None:
        if not self._frames and self._after is not None:
            self._advance(self._after)
            self._after = None

    def _advance(self, token: ResumeToken) -> None:
        self._topic_id = token.topic_id or self._topic_id
        for place in token.next:
            known = self._places.get(place.partition)
            place = NextPosition.FromString(place.SerializeToString())  # noqa: PLW2901 - a copy
            # A bridge that reads again from an older offset has not forgotten what we have seen.
            if known is not None and known.HasField("row"):
                place.row = max(known.row, place.row)
            self._places[place.partition] = place

    def _next_row_of(self, partition: int, row: int) -> None:
        """Goes on with this row; the offset stays, since all later rows are found from there."""
        place = self._places.get(partition)
        if place is None:
            # Not even an offset is known: the bridge looks for the row.
            place = self._places[partition] = NextPosition(partition=partition)
        place.row = row

    def _new_rows(self, block: FeatureBlock, expected: dict[int, int]) -> FeatureFrame:
        """The rows of a block that have not been received and are new enough."""
        self._set = self._set or block.feature_set
        frame = FeatureFrame(block)
        if not self._every_row or not len(frame):
            return self._recent(frame)
        partition, rows = frame.partition, frame.rows
        wanted = expected.get(partition)
        if wanted is not None:
            if self._whole and rows[0] > wanted:
                raise RowGapError(
                    f"expected row {wanted} of partition {partition} (set {self._set}), was "
                    f"{rows[0]}; the rows between were deleted, start from 'earliest'"
                )
            if rows[0] < wanted:
                frame = frame.take(_from_row(rows, wanted))
        expected[partition] = max(rows[-1] + 1, wanted or 0)
        return self._recent(frame)

    def _recent(self, frame: FeatureFrame) -> FeatureFrame:
        since = self._since_ns
        if since is None or all(time >= since for time in frame.event_times_ns):
            return frame
        return frame.take([i for i, time in enumerate(frame.event_times_ns) if time >= since])


def _from_row(rows: Sequence[int], first: int) -> Sequence[int]:
    return [i for i, row in enumerate(rows) if row >= first]
