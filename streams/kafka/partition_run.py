"""One assigned partition: its task, and how far it has come since the last commit."""

from dataclasses import dataclass

from streams.kafka.ports import PartitionTask
from streams.kafka.snapshots import ChunkHeader, CommitMark


@dataclass(slots=True)
class Progress:
    """A point in the partition.

    Attributes:
        offset: Next source offset.
        row: Identity of the next row.
    """

    offset: int
    row: int


class PartitionRun:
    """Ownership of one partition, from assignment to revocation.

    Attributes:
        partition: Partition number.
        task: Computes its rows.
        origin: Where its state began.
        live: Whether its messages are being processed, as opposed to restored.
        stored: Chunk number to `next_offset` of its stored version.
        clock_ns: When the task last acted by the clock, ns since 1970 (UTC); 0 is not yet.
        gap_end: First offset after the last gap that was seen in the log; -1 is none.
        end_seen: Where the log ended when the consumer last came to its end, -1 since it was moved.
    """

    def __init__(self, partition: int, task: PartitionTask) -> None:
        self.partition = partition
        self.task = task
        self.origin = ""
        self.live = False
        self.next = Progress(0, 0)
        self.committed = Progress(0, 0)
        self.stored: dict[int, int] = {}
        self.gap_end = -1
        self.end_seen = -1
        self.clock_ns = 0
        self._committed_clock_ns = 0
        self._storing: dict[int, int] = {}

    def start_at(self, offset: int, row: int, origin: str) -> None:
        """Sets the position at which processing begins."""
        self.next, self.committed = Progress(offset, row), Progress(offset, row)
        self.origin = origin

    @property
    def advanced(self) -> bool:
        """Whether messages were processed since the last commit."""
        return self.next.offset != self.committed.offset

    @property
    def read_until(self) -> int:
        """Offset below which nothing is left to process; what follows may hold no records."""
        return max(self.next.offset, self.end_seen)

    @property
    def clocked(self) -> bool:
        """Whether the task has acted by the clock since the last commit."""
        return self.clock_ns != self._committed_clock_ns

    def clocked_by(self, now_ns: int) -> None:
        """Notes that the task has acted by the clock, always at a time of its own."""
        self.clock_ns = max(now_ns, self.clock_ns + 1)

    @property
    def unsaved(self) -> bool:
        """Whether a restart would have to replay messages, since not all state is stored."""
        offset, _ = self.task.resume_point(self.next.offset, self.next.row)
        return offset < self.next.offset

    def mark(self, set_hash: str) -> CommitMark:
        """Returns what the next commit says about this partition."""
        resume, row = self.task.resume_point(self.next.offset, self.next.row)
        stored = self.stored | self._storing
        newest = max(stored.values(), default=0)
        return CommitMark(
            self.next.row,
            self.origin,
            resume,
            row,
            len(stored),
            newest,
            set_hash,
            self.clock_ns,
        )

    def is_committed_by(self, mark: CommitMark | None, set_hash: str) -> bool:
        """Whether a commit is the one that this partition's state stands at."""
        return mark is not None and (mark.row, mark.origin, mark.set_hash, mark.clock_ns) == (
            self.committed.row,
            self.origin,
            set_hash,
            self._committed_clock_ns,
        )

    def store(self, chunk: int, set_hash: str, partitions: int) -> ChunkHeader:
        """Notes that a chunk is stored with the next commit and returns its header."""
        self._storing[chunk] = self.next.offset
        return ChunkHeader(
            set_hash,
            partitions,
            self.partition,
            chunk,
            self.origin,
            self.next.offset,
            self.next.row,
        )

    def commit(self) -> None:
        """The transaction has committed."""
        self.committed = Progress(self.next.offset, self.next.row)
        self._committed_clock_ns = self.clock_ns
        self.stored |= self._storing
        self._storing.clear()
        self.task.commit()

    def rollback(self) -> None:
        """The transaction was aborted: back to the last commit."""
        self.next = Progress(self.committed.offset, self.committed.row)
        self.end_seen = -1
        self.clock_ns = self._committed_clock_ns
        self._storing.clear()
        self.task.rollback()
