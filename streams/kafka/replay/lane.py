"""One partition of a replay: rows that were computed and wait for their time."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schemas import headers as names
from streams.kafka.batch import PartitionBatch
from streams.kafka.replay.believed import BelievedTime
from streams.kafka.replay.plan import PartitionPlan
from streams.kafka.replay.ports import ReplayTask, SelectedRows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True)
class _Waiting:
    """Rows of one batch, from `low` on.

    Attributes:
        rows: The rows.
        due: int64 [n], event time at which each may go: never before the one in front of it. None
            while that depends on ticks that were not read yet.
        low: The first one that is still here.
        next_offset: Offset after the batch.
    """

    rows: SelectedRows
    due: "NDArray[np.int64] | None"
    low: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """A batch of which it is not decided yet which times are believed.

    Attributes:
        offsets: int64 [ticks], offset of each one's message.
        rows: What it gave, if anything.
    """

    offsets: "NDArray[np.int64]"
    rows: _Waiting | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows for one output record.

    Attributes:
        value: Record value.
        rows: How many.
        first_row: Identity of the first one.
        first_offset: Offset of the message of the first one.
        last_offset: Likewise of the last one.
        newest_ns: Newest event time in it.
    """

    value: bytes
    rows: int
    first_row: int
    first_offset: int
    last_offset: int
    newest_ns: int

    def headers(self, set_hash: str, origin: str, backend: str) -> list[tuple[str, bytes]]:
        """Returns the record's headers, as live blocks have them."""
        return [
            (names.FIRST_ROW, b"%d" % self.first_row),
            (names.ROWS, b"%d" % self.rows),
            (names.SOURCE_FIRST_OFFSET, b"%d" % self.first_offset),
            (names.SOURCE_LAST_OFFSET, b"%d" % self.last_offset),
            (names.SET_HASH, set_hash.encode()),
            (names.ORIGIN, origin.encode()),
            (names.BACKEND, backend.encode()),
        ]


class Lane:
    """Brings the state of a partition to the range, then gives out rows in source order.

    Args:
        plan: What is read, and how many rows are in the output already.
        task: With empty state, or that of the plan's snapshot.
        group: Whose rows it computes: what was sent again for other groups is passed over.

    Attributes:
        plan: As given.
        row: Identity of the next row to give out.
        pending: Rows that wait.
        position: Offset of the next message that has rows to give out.
        finished: Whether `finish` was called.
    """

    def __init__(self, plan: PartitionPlan, task: ReplayTask, group: str = "") -> None:
        self.plan = plan
        self.row = plan.row
        self.pending = 0
        self.position = self._read = plan.begin
        self.finished = False
        self._task = task
        self._group = group
        self._waiting: deque[_Waiting] = deque()
        self._seen: deque[_Seen] = deque()
        self._believed = BelievedTime()
        # Rows below the committed count are computed again and not given out again.
        self._computed = 0
        self._newest_due = -1

    @property
    def horizon_ns(self) -> int:
        """Event time up to which the ticks of a paced replay are known; at first the far past."""
        return self._believed.newest_ns

    @property
    def undecided(self) -> bool:
        """Whether rows of a paced replay wait for ticks behind them that are not read yet."""
        return bool(self._seen)

    def take(self, batch: PartitionBatch, *, keep: bool) -> None:
        """Computes a batch.

        Args:
            batch: The messages that follow.
            keep: Whether its rows wait for their time, so that they must last longer than until the
                next batch.
        """
        cut = self.plan.emit_from
        if batch.first_offset < cut:
            before = [m for m in batch.messages if m.offset() < cut]
            own = self._own(PartitionBatch(batch.partition, before))
            if len(own):
                self._task.replay(own, 0)
            rest = batch.messages[len(before) :]
            self._advance(before[-1].offset() + 1)
            if not rest:
                return
            batch = PartitionBatch(batch.partition, rest)
        own = self._own(batch)
        rows = self._task.select(own) if len(own) else None
        waiting = None
        if rows is not None:
            waiting = self._add(rows, batch.next_offset, keep=keep)
        if keep and len(own):
            self._believed.add(self._task.tick_times)
            offsets = np.array([message.offset() for message in own.messages], np.int64)
            self._seen.append(_Seen(offsets[self._task.tick_messages], waiting))
            self._decide(final=False)
        self._advance(batch.next_offset)

    def finish(self, *, keep: bool) -> None:
        """Takes what the end of the log makes certain.

        Args:
            keep: As for `take`.
        """
        self.finished = True
        self._decide(final=True)
        rows = self._task.finish()
        if rows is not None:
            waiting = self._add(rows, self.plan.end, keep=keep)
            if keep and waiting is not None:
                self._set_due(waiting, rows.event_time)
        self._advance(self.plan.end)

    def next_due_ns(self) -> int | None:
        """Returns the event time of the first row that waits; None if none does, or not known."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        return None if first.due is None else int(first.due[first.low])

    def pieces(self, bound_ns: int) -> list[Piece]:
        """Gives out the rows whose time is at most `bound_ns`, as records."""
        pieces: list[Piece] = []
        while self._waiting:
            first = self._waiting[0]
            if first.due is None:
                break
            high = int(np.searchsorted(first.due, bound_ns, "right"))
            if high <= first.low:
                break
            self._cut(first, high, pieces)
            if high == len(first.due):
                self._waiting.popleft()
                self._advance(first.next_offset)
            else:
                first.low = high
                self.position = int(first.rows.offsets[high])
        return pieces

    def _own(self, batch: PartitionBatch) -> PartitionBatch:
        return batch.for_group(self._group) if self._group else batch

    def _add(self, rows: SelectedRows, next_offset: int, *, keep: bool) -> _Waiting | None:
        """Lets the rows wait that are not in the output already."""
        count = len(rows.event_time)
        low = min(max(self.plan.row - self._computed, 0), count)
        self._computed += count
        if low == count:
            return None
        waiting = _Waiting(rows.keep() if keep else rows, None, low, next_offset)
        if not keep:
            self._set_due(waiting, rows.event_time)
        self._waiting.append(waiting)
        self.pending += count - low
        return waiting

    def _decide(self, *, final: bool) -> None:
        """Sets when rows are due whose times are found to be true, or not."""
        for reached in self._believed.decide(final=final):
            seen = self._seen.popleft()
            if seen.rows is not None:
                rows = seen.rows.rows
                last = np.searchsorted(seen.offsets, rows.offsets, "right") - 1
                self._set_due(seen.rows, np.minimum(rows.event_time, reached[last]))

    def _set_due(self, waiting: _Waiting, times: "NDArray[np.int64]") -> None:
        due = np.maximum.accumulate(times)
        np.maximum(due, self._newest_due, out=due)
        self._newest_due = int(due[-1])
        waiting.due = due

    def _advance(self, offset: int) -> None:
        self._read = max(self._read, offset)
        if not self._waiting:
            self.position = self._read

    def _cut(self, waiting: _Waiting, high: int, pieces: list[Piece]) -> None:
        rows, most = waiting.rows, self._task.rows_per_record
        for low in range(waiting.low, high, most):
            end = min(low + most, high)
            pieces.append(
                Piece(
                    rows.encode(low, end),
                    end - low,
                    self.row,
                    int(rows.offsets[low]),
                    int(rows.offsets[end - 1]),
                    int(rows.event_time[low:end].max()),
                )
            )
            self.row += end - low
            self.pending -= end - low
