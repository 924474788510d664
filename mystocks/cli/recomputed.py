"""Rows of a features topic computed again from the ticks, and compared bit for bit."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Message
from numpy.typing import NDArray

from processors.features.task import FeatureTask
from streams.kafka.batch import PartitionBatch, by_partition

# Messages that are computed together; the split does not change a bit of the result.
_MESSAGES = 2000


class Recomputed:
    """Rows computed again, from an origin on, in the order of the log.

    Args:
        task: Computes them.
        source: Ticks of the partition from the origin on.
        group: Of the feature set; what was sent again for others only is passed over.
        first_row: Identity of the first row wanted.
        first_offset: Offset of the message that it came from.
    """

    def __init__(
        self,
        task: FeatureTask,
        source: Iterator[Message],
        group: str,
        first_row: int,
        first_offset: int,
    ) -> None:
        self._group = group
        self._blocks: deque[tuple[int, pa.RecordBatch]] = deque()
        self._produced = self._produce(task, source, first_row, first_offset)

    def _produce(
        self, task: FeatureTask, source: Iterator[Message], first_row: int, first_offset: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields (identity of the first row, rows).

        The first block seen need not be the first of its origin: what comes before its source
        offset only brings the state there.
        """
        row = None
        for read in batches(source, first_offset):
            batch = read.for_group(self._group)
            if not len(batch):
                continue
            if batch.first_offset < first_offset:
                task.replay(batch, 0)
                continue
            row = first_row if row is None else row
            produced = task.process(batch, row)
            task.commit()
            for block in produced.blocks:
                rows = pa.ipc.open_stream(block.value).read_next_batch()
                yield row, rows
                row += len(rows)

    def differing(self, batch: pa.RecordBatch, first: int) -> tuple[list[int], int]:
        """Returns identities of rows that are not equal, and how many were compared.

        Rows that the ticks do not give are counted as differing.
        """
        end = first + len(batch)
        while not self._blocks or self._blocks[-1][0] + len(self._blocks[-1][1]) < end:
            following = next(self._produced, None)
            if following is None:
                break
            self._blocks.append(following)
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= first:
            self._blocks.popleft()
        differing: list[int] = []
        reached = first
        for start, rows in self._blocks:
            low, high = max(start, reached), min(start + len(rows), end)
            if low < high and low == reached:
                ours = rows.slice(low - start, high - low)
                theirs = batch.slice(low - first, high - low)
                differing += (low + np.flatnonzero(unequal_rows(ours, theirs))).tolist()
                reached = high
        differing += range(reached, end)
        return differing, len(batch)


def unequal_rows(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> NDArray[np.bool_]:
    """Which rows differ in any bit of any column, bool [n]."""
    unequal = np.zeros(len(ours), np.bool_)
    if ours.schema.names != theirs.schema.names:
        return ~unequal
    for name in ours.schema.names:
        left, right = _bits(ours.column(name)), _bits(theirs.column(name))
        unequal |= np.logical_or(left[0] != right[0], left[1] != right[1])
    return unequal


def _bits(column: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    missing = np.asarray(column.is_null())
    kind = column.type
    if pa.types.is_dictionary(kind):
        return np.asarray(column.cast(pa.utf8()).to_pylist(), object), missing
    if pa.types.is_floating(kind):
        values = np.ascontiguousarray(column.fill_null(0.0).to_numpy(zero_copy_only=False))
        return values.view(np.int64 if kind == pa.float64() else np.int32), missing
    if pa.types.is_string(kind):
        return np.asarray(column.to_pylist(), object), missing
    return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), missing


def batches(messages: Iterator[Message], cut: int | None = None) -> Iterator[PartitionBatch]:
    """Groups messages; a batch never reaches across the offset `cut`."""
    waiting: list[Message] = []
    for message in messages:
        if waiting and (len(waiting) >= _MESSAGES or message.offset() == cut):
            yield from by_partition(waiting)
            waiting = []
        waiting.append(message)
    yield from by_partition(waiting)
