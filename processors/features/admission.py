"""Which ticks of a partition get a row: those that are neither late nor duplicates.

What decides it is state like any other: it goes back with an aborted transaction and is stored
with the kernel's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.state import PartitionState
from processors.features.tick_rows import rows_by_message, select_ticks
from processors.order import DUPLICATE, LATE, TAKE, DroppedTicks, TickOrder
from schemas.processing import LATE_TICK, MessageBatch, Refusal

if TYPE_CHECKING:
    from schemas.ticks import TickColumns

# Stored parts of `DroppedTicks` are numbered from here on, after every part of the state.
_FIRST_PART = 1 << 30

Groups = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of decoded ticks.

    Attributes:
        ticks: Those that get a row.
        groups: Their rows by symbol, where that was found out on the way (see `group_by_slot`).
        late: The late ones.
        duplicates: How many duplicates there were.
    """

    ticks: "TickColumns"
    groups: Groups | None
    late: Sequence[Refusal]
    duplicates: int


class Admission:
    """Applies the rules of `TickOrder` to one partition.

    Args:
        order: The rules.
        lateness_ns: The allowed lateness, for messages.
    """

    def __init__(self, order: TickOrder, lateness_ns: int) -> None:
        self._order = order
        self._lateness_s = lateness_ns / 1e9
        self._dropped = DroppedTicks()
        self._watermarks = np.empty(0, np.int64)

    def reset(self) -> None:
        """Forgets everything."""
        self._dropped = DroppedTicks()

    def admit(
        self,
        ticks: "TickColumns",
        batch: MessageBatch,
        state: PartitionState,
        names: Sequence[str],
        workspace: GroupingWorkspace,
    ) -> Admitted:
        """Judges the ticks of a batch and advances what decides it.

        Args:
            ticks: The ticks.
            batch: Where they came from.
            state: Has room for all of their symbols.
            names: Symbol of every slot.
            workspace: Buffers of the groups.
        """
        groups = group_by_slot(ticks.code, workspace)
        state.remember(groups[2])
        if len(self._watermarks) < len(ticks):
            self._watermarks = np.empty(2 * len(ticks), np.int64)
        watermarks = self._watermarks[: len(ticks)]
        verdict = self._order.judge(
            ticks.code, ticks.event_time, ticks.sequence, state.order, watermarks
        )
        if not verdict.any():
            return Admitted(ticks, groups, (), 0)
        dropped = np.flatnonzero(verdict)
        self._dropped.add(batch.offsets[ticks.message[dropped]], ticks.row[dropped])
        late = self._late(ticks, np.flatnonzero(verdict == LATE), watermarks, names)
        duplicates = int((verdict == DUPLICATE).sum())
        return Admitted(select_ticks(ticks, verdict == TAKE), None, late, duplicates)

    def replay(
        self,
        ticks: "TickColumns",
        batch: MessageBatch,
        state: PartitionState,
        workspace: GroupingWorkspace,
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Judges the ticks of a batch that some of the restored state may include already.

        Returns:
            Which ticks have a row, bool [n], and which of these the state does not include yet.
        """
        offsets = batch.offsets[ticks.message]
        new = offsets >= state.known_until[ticks.code]
        has_row = np.ones(len(ticks), np.bool_)
        has_row[~new] = ~self._dropped.contain(offsets[~new], ticks.row[~new])
        code, rows = ticks.code[new], ticks.row[new]
        if len(code):
            state.remember(group_by_slot(code, workspace)[2])
            verdict = self._order.judge(
                code, ticks.event_time[new], ticks.sequence[new], state.order
            )
            dropped = verdict != TAKE
            has_row[new] = ~dropped
            self._dropped.add(offsets[new][dropped], rows[dropped])
        self._dropped.replayed()
        return has_row, has_row & new

    def due_parts(self, *, with_state: bool) -> list[tuple[int, bytes]]:
        """Returns what to store with the next commit; see `DroppedTicks.due`."""
        return [
            (_FIRST_PART + number, payload)
            for number, payload in self._dropped.due(with_state=with_state)
        ]

    def load(self, number: int, payload: bytes) -> bool:
        """Loads a stored part; returns False where the number is one of the state."""
        if number < _FIRST_PART:
            return False
        self._dropped.load(number - _FIRST_PART, payload)
        return True

    def commit(self, resume: int) -> None:
        """See `DroppedTicks.commit`."""
        self._dropped.commit(resume)

    def rollback(self) -> None:
        """See `DroppedTicks.rollback`."""
        self._dropped.rollback()

    def _late(
        self,
        ticks: "TickColumns",
        rows: NDArray[np.intp],
        watermarks: NDArray[np.int64],
        names: Sequence[str],
    ) -> list[Refusal]:
        refusals = []
        first = dict(zip(ticks.message[rows][::-1].tolist(), rows[::-1].tolist(), strict=True))
        for message, positions in rows_by_message(ticks, rows).items():
            row = first[message]
            behind = (int(watermarks[row]) - int(ticks.event_time[row])) / 1e9
            others = f" (and {len(positions) - 1} more)" if len(positions) > 1 else ""
            refusals.append(
                Refusal(
                    message,
                    positions,
                    f"late: tick {positions[0]} is {behind:.9g} s behind the newest of "
                    f"{names[int(ticks.code[row])]}, allowed are {self._lateness_s:g} s{others}",
                    LATE_TICK,
                )
            )
        return refusals
