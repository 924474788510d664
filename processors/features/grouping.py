"""Grouping a micro-batch by symbol: a counting sort that touches only the symbols at hand."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.machine_code import kept_njit

Ints: TypeAlias = npt.NDArray[np.int32]


class GroupingWorkspace:
    """Buffers for `group_by_slot`; they grow as needed and are reused from call to call."""

    def __init__(self, slots: int = 1024, rows: int = 4096) -> None:
        self.reserve(slots, rows)

    def reserve(self, slots: int, rows: int) -> None:
        """Make room for codes below ``slots`` and batches of ``rows`` rows."""
        self.group_of_slot: Ints = np.full(slots, -1, np.int32)
        self.group_of_row: Ints = np.empty(rows, np.int32)
        self.order: Ints = np.empty(rows, np.int32)
        self.starts: Ints = np.empty(rows + 1, np.int32)
        self.cursor: Ints = np.empty(rows + 1, np.int32)
        self.slots: Ints = np.empty(rows, np.int32)


def group_by_slot(codes: Ints, workspace: GroupingWorkspace) -> tuple[Ints, Ints, Ints]:
    """Group rows by their code, stable, groups in order of first appearance.

    Args:
        codes: Slot of each row's symbol, int32[n], not negative.
        workspace: Buffers; the result is made of views of them, valid until the next call.

    Returns:
        ``order`` (int32[n]: row numbers, group by group, in arrival order within a group),
        ``starts`` (int32[m + 1]: where each group begins in ``order``, then n) and ``slots``
        (int32[m]: the code of each group).
    """
    rows = len(codes)
    if rows > len(workspace.order):
        workspace.reserve(len(workspace.group_of_slot), _grown(rows))
    highest = _highest(codes)
    if highest >= len(workspace.group_of_slot):
        workspace.reserve(_grown(highest + 1), len(workspace.order))
    groups = _group(
        codes,
        workspace.group_of_slot,
        workspace.group_of_row,
        workspace.order,
        workspace.starts,
        workspace.cursor,
        workspace.slots,
    )
    return workspace.order[:rows], workspace.starts[: groups + 1], workspace.slots[:groups]


def _grown(needed: int) -> int:
    return int(1 << max(needed - 1, 1).bit_length())


@kept_njit()
def _highest(codes: Ints) -> int:
    highest = -1
    for i in range(codes.size):
        highest = max(highest, codes[i])
    return highest


@kept_njit()
def _group(
    codes: Ints,
    group_of_slot: Ints,
    group_of_row: Ints,
    order: Ints,
    starts: Ints,
    cursor: Ints,
    slots: Ints,
) -> int:
    """Fill the buffers and return the number of groups."""
    groups = 0
    for i in range(codes.size):
        code = codes[i]
        group = group_of_slot[code]
        if group < 0:
            group = groups
            groups += 1
            group_of_slot[code] = group
            slots[group] = code
            cursor[group] = 0
        cursor[group] += 1
        group_of_row[i] = group
    start = 0
    for group in range(groups):
        group_of_slot[slots[group]] = -1
        starts[group] = start
        count = cursor[group]
        cursor[group] = start
        start += count
    starts[groups] = start
    for i in range(codes.size):
        group = group_of_row[i]
        order[cursor[group]] = i
        cursor[group] += 1
    return groups
