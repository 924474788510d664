"""Keeps a complete snapshot of every partition each day, from which a replay can begin.

The chunks go into the loop's own transactions, a few in each, once the day (UTC, wall clock) has
changed and only while the partition advances. What an aborted transaction held is written again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.errors import UnavailableError
from streams.kafka.archive import CHUNKS, CYCLE
from streams.kafka.batch import header
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.feature_positions import last_records
from streams.kafka.output import Output
from streams.kafka.partition_run import PartitionRun
from streams.kafka.snapshots import ChunkHeader, encode_chunk

# Of one transaction; at ten commits a second a gigabyte takes some minutes.
_BUDGET = 512 * 1024
# How far back the last record is looked for: behind it is the mark of its transaction's end.
_LOOK_BACK = 4

_log = structlog.get_logger(__name__)


@runtime_checkable
class WholeState(Protocol):
    """A task whose whole state can be written, not only what has changed."""

    @property
    def chunk_count(self) -> int:
        """How many chunks the state has."""

    def encode_chunk(self, chunk: int) -> bytes:
        """Returns a chunk as it is now."""


@dataclass(slots=True)
class _Cycle:
    """How far the snapshot of a partition is.

    Attributes:
        run: The partition while it is ours.
        day: Of the newest complete or open snapshot.
        name: Of the open one; empty is none.
        written: Chunks of it that are committed.
        writing: Chunks of it that are in the transaction up to `offset`.
        offset: Source offset up to which that transaction goes.
    """

    run: PartitionRun
    day: str
    name: str = ""
    written: int = 0
    writing: int = 0
    offset: int = -1


class ArchiveWriter:
    """Writes the archive of one group; belongs to the loop's thread.

    Args:
        reader: Outside any group, reports ends of partitions; finds the newest snapshot of a
            partition that was assigned.
        topic: The archive.
        set_hash: Identity of the computation.
        partitions: Partition count of the source.
        wall_clock: Seconds since 1970 (UTC).
    """

    def __init__(
        self,
        reader: Consumer,
        topic: str,
        set_hash: str,
        partitions: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._set_hash = set_hash
        self._partitions = partitions
        self._wall_clock = wall_clock
        self._cycles: dict[int, _Cycle] = {}

    def produce(self, output: Output, runs: Sequence[PartitionRun]) -> None:
        """Adds chunks that are due to the open transaction.

        Args:
            output: With an open transaction.
            runs: The partitions that the transaction advances.
        """
        day = datetime.fromtimestamp(self._wall_clock(), UTC).date().isoformat()
        budget = _BUDGET
        for run in runs:
            if not isinstance(run.task, WholeState):
                continue
            cycle = self._cycles.get(run.partition)
            if cycle is None or cycle.run is not run:
                cycle = self._cycles[run.partition] = _Cycle(run, self._last_day(run.partition))
            self._settle(cycle)
            if not cycle.name and cycle.day != day:
                cycle.name, cycle.day, cycle.written = f"{day}/{run.next.offset}", day, 0
            if cycle.name and budget > 0:
                budget -= self._write(output, run, run.task, cycle, budget)

    def rollback(self) -> None:
        """The open transaction was aborted, with the chunks in it."""
        for cycle in self._cycles.values():
            if cycle.run.committed.offset < cycle.offset:
                cycle.writing, cycle.offset = 0, -1

    def _settle(self, cycle: _Cycle) -> None:
        """Notes the chunks of the last transaction that had any; it was committed."""
        if cycle.offset < 0:
            return
        cycle.written += cycle.writing
        if cycle.written >= self._count(cycle.run):
            cycle.name = ""
        cycle.writing, cycle.offset = 0, -1

    @staticmethod
    def _count(run: PartitionRun) -> int:
        return run.task.chunk_count if isinstance(run.task, WholeState) else 0

    def _write(
        self, output: Output, run: PartitionRun, task: WholeState, cycle: _Cycle, budget: int
    ) -> int:
        size, count = 0, task.chunk_count
        cycle.offset = run.next.offset
        while cycle.written + cycle.writing < count and size < budget:
            chunk = cycle.written + cycle.writing
            head = ChunkHeader(
                self._set_hash,
                self._partitions,
                run.partition,
                chunk,
                run.origin,
                run.next.offset,
                run.next.row,
            )
            value = encode_chunk(head, task.encode_chunk(chunk))
            headers = [(CYCLE, cycle.name.encode())]
            if chunk == count - 1:
                headers.append((CHUNKS, b"%d" % count))
            output.produce(self._topic, value, run.partition, key=head.key, headers=headers)
            cycle.writing += 1
            size += len(value)
        return size

    def _last_day(self, partition: int) -> str:
        """Returns the day of the newest complete snapshot in the log, or an empty text."""
        place = TopicPartition(self._topic, partition)
        try:
            marks = first_and_end(self._reader, place, CALL_TIMEOUT_S)
            found = last_records(self._reader, self._topic, partition, marks, _LOOK_BACK)
        except (KafkaException, UnavailableError) as error:
            # At worst the day has two snapshots.
            _log.warning("archive not readable", error=str(error))
            return ""
        finally:
            self._reader.unassign()
        if not found or header(found[-1].headers(), CHUNKS) is None:
            return ""
        return (header(found[-1].headers(), CYCLE) or "").partition("/")[0]
