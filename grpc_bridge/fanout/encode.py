"""From rows in columns to the serialized block that a choice of them makes."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.record import Columns, FeatureRecord
from grpc_bridge.fanout.wire import block_head, encode_block

Pick = NDArray[np.intp] | slice
# Rows of so many symbols are looked up one symbol after the other.
_FEW = 8


class EncodedBlock(NamedTuple):
    """Some rows of one record.

    Attributes:
        partition: Partition of the rows.
        rows: Number of rows.
        source_first_offset: First source record that the whole record was computed from.
        source_last_offset: Last one; a record that reaches a tick's offset holds that tick's row.
        data: A serialized FeatureBlock.
    """

    partition: int
    rows: int
    source_first_offset: int
    source_last_offset: int
    data: bytes


class RowSet(NamedTuple):
    """Rows of one partition that need not follow each other.

    Attributes:
        columns: The rows.
        numbers: Identity of each, int64[rows], rising.
        set_hash: Identity of the computation.
        partition: Partition.
        source_first_offset: First source record.
        source_last_offset: Last source record.
    """

    columns: Columns
    numbers: NDArray[np.int64]
    set_hash: str
    partition: int
    source_first_offset: int
    source_last_offset: int


@functools.lru_cache(maxsize=1024)
def _indices(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...]:
    """Places of those wanted names that a record has."""
    return tuple(names.index(name) for name in wanted if name in names)


def pick_rows(record: FeatureRecord, choice: Choice, seen: int = 0) -> Pick | None:
    """Returns which rows of a record a choice shows; None for no row.

    Args:
        record: The record.
        choice: What is wanted.
        seen: So many rows at the beginning were delivered before.

    Raises:
        InvalidInputError: The record is no feature block.
    """
    columns = record.columns()
    count = len(columns.codes)
    if seen >= count:
        return None
    since_ns = choice.since_ns
    late = since_ns is not None and record.oldest_ns < since_ns
    rows: NDArray[np.intp] | None = None
    if choice.symbols is not None:
        codes = record.codes_of(choice.symbols)
        if not codes:
            return None
        if len(codes) <= _FEW:
            rows = record.rows_of(codes)
        elif len(codes) < len(columns.symbols):
            table = np.zeros(len(columns.symbols), np.bool_)
            table[codes] = True
            rows = np.flatnonzero(table[columns.codes])
    if rows is None:
        if not late:
            return slice(seen, count)
        rows = np.arange(count)
    if seen:
        rows = rows[rows >= seen]
    if late and since_ns is not None:
        rows = rows[columns.times[rows] >= since_ns]
    return rows if len(rows) else None


def encode_record(
    feature_set: str, record: FeatureRecord, choice: Choice, pick: Pick
) -> EncodedBlock:
    """Returns the block of some rows of a record.

    Args:
        feature_set: Name of the set.
        record: The record.
        choice: Of which `names` says what to show.
        pick: From `pick_rows`.
    """
    first = int(pick.start if isinstance(pick, slice) else pick[0])
    offsets = None
    if not isinstance(pick, slice) and int(pick[-1]) - first + 1 != len(pick):
        offsets = pick - first
    data = _encode(
        feature_set,
        record.columns(),
        choice,
        pick,
        record.set_hash,
        record.partition,
        record.first_row + first,
        offsets,
        record.source_first_offset,
        record.source_last_offset,
    )
    rows = pick.stop - pick.start if isinstance(pick, slice) else len(pick)
    source = (record.source_first_offset, record.source_last_offset)
    return EncodedBlock(record.partition, rows, *source, data)


def encode_rows(feature_set: str, rows: RowSet, choice: Choice) -> EncodedBlock:
    """Returns the block of rows that need not follow each other.

    Args:
        feature_set: Name of the set.
        rows: At least one row; their numbers lie within 2**32 of each other.
        choice: Of which `names` says what to show.
    """
    first, count = int(rows.numbers[0]), len(rows.numbers)
    gaps = int(rows.numbers[-1]) - first + 1 != count
    data = _encode(
        feature_set,
        rows.columns,
        choice,
        slice(0, count),
        rows.set_hash,
        rows.partition,
        first,
        rows.numbers - first if gaps else None,
        rows.source_first_offset,
        rows.source_last_offset,
    )
    source = (rows.source_first_offset, rows.source_last_offset)
    return EncodedBlock(rows.partition, count, *source, data)


def take_rows(columns: Columns, pick: Pick) -> Columns:
    """Returns some rows, with only the symbols that they have."""
    if isinstance(pick, slice) and pick.start == 0 and pick.stop == len(columns.codes):
        return columns
    codes = columns.codes[pick]
    present = np.zeros(len(columns.symbols), np.bool_)
    present[codes] = True
    used = np.flatnonzero(present)
    return Columns(
        columns.names,
        [columns.symbols[code] for code in used.tolist()],
        (np.cumsum(present, dtype=np.int32) - 1)[codes],
        columns.times[pick],
        columns.prices[pick],
        [value[pick] for value in columns.values],
    )


def take_names(columns: Columns, names: tuple[str, ...] | None) -> Columns:
    """Returns the wanted features of those that the rows have."""
    if names is None:
        return columns
    found = _indices(columns.names, names)
    return columns._replace(
        names=tuple(columns.names[i] for i in found), values=[columns.values[i] for i in found]
    )


def _encode(
    feature_set: str,
    columns: Columns,
    choice: Choice,
    pick: Pick,
    set_hash: str,
    partition: int,
    first_row: int,
    row_offsets: NDArray[np.int64] | NDArray[np.intp] | None,
    source_first_offset: int,
    source_last_offset: int,
) -> bytes:
    shown = take_rows(take_names(columns, choice.names), pick)
    return encode_block(
        block_head(feature_set, set_hash, shown.names),
        shown.symbols,
        shown.codes,
        shown.times,
        shown.prices,
        shown.values,
        partition=partition,
        first_row=first_row,
        row_offsets=row_offsets,
        source_first_offset=source_first_offset,
        source_last_offset=source_last_offset,
    )
