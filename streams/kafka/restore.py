"""Bringing a newly assigned partition to where its group has committed.

Stored chunks are loaded, and the log is replayed from there to the committed offset without
output. A reader of its own does it, so that the group consumer's position is never touched. All
work happens in short steps between which the loop goes on polling.
"""

import time
from collections.abc import Generator, Iterator
from typing import Any, Literal

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas import headers as names
from streams.kafka.batch import PartitionBatch, header
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.errors import (
    KafkaUnavailableError,
    PartitionCountError,
    StateNotRestorableError,
    TransactionAbortedError,
    kafka_error,
)
from streams.kafka.partition_run import PartitionRun
from streams.kafka.snapshots import ChunkHeader, CommitMark, decode_chunk

# A broker that is not there for longer is asked again, and polls go on in between.
_METADATA_TIMEOUT_S = 3.0
# One step of a restore keeps the loop from polling for at most about this long.
_STEP_S = 0.05
_MESSAGES_PER_STEP = 2_000

Policy = Literal["fail", "warmup", "rebuild"]
Chunks = dict[bytes, tuple[ChunkHeader, bytes]]

_log = structlog.get_logger(__name__)


class Restorer:
    """Restores partitions of one source topic, one after the other."""

    def __init__(
        self,
        reader: Consumer,
        *,
        source: str,
        output: str,
        state: str,
        partitions: int,
        set_hash: str,
        policy: Policy,
        rows_before_commits: bool = False,
        section: str = "features",
        group: str = "",
    ) -> None:
        """Prepares to restore.

        Args:
            reader: Outside any group.
            source: Topic consumed.
            output: Topic of the rows.
            state: Topic of state chunks.
            partitions: Partition count of all of them.
            set_hash: Identity of the computation.
            policy: What to do about state that cannot be restored.
            rows_before_commits: Whether rows without a committed offset are to be expected, as
                after a crash at least once.
            section: Of the settings, for messages that say what to do.
            group: Whose state it is.
        """
        self._group = group
        self._reader = reader
        self._source = source
        self._output = output
        self._state = state
        self._partitions = partitions
        self._set_hash = set_hash
        self._policy = policy
        self._rows_before_commits = rows_before_commits
        self._prefix = f"MYSTOCKS_{section.upper()}__"
        self._anew = start_anew(section)

    def restore(self, run: PartitionRun, committed: TopicPartition) -> Generator[None, None, None]:
        """Brings `run` to its starting position, in steps.

        Args:
            run: Its task is empty.
            committed: The group's committed offset and metadata; a negative offset is none.

        Raises:
            StateNotRestorableError: State cannot be restored and the policy is ``fail``.
            PartitionCountError: The source had another number of partitions.
        """
        began = time.monotonic()
        partition = run.partition
        low, high = self._watermarks(self._source, partition)
        mark = CommitMark.decode(committed.metadata)
        position = committed.offset
        try:
            if position < 0:
                position, row = yield from self._after_last_block(partition)
                if position < 0 or self._rows_before_commits:
                    run.start_at(low, row, f"{partition}:{low}")
                    _log.info("partition starts", partition=partition, offset=low, row=row)
                    return
                raise StateNotRestorableError(
                    f"expected a committed offset, as {self._output} has rows up to offset "
                    f"{position}, was none: the group was deleted, or its offsets have expired"
                )
            if position > high:
                raise StateNotRestorableError(
                    f"expected the log to reach the committed offset {position}, ends at "
                    f"{high}: the topic was created again"
                )
            yield from self._restore_chunks(run, position, mark, low)
        except StateNotRestorableError as error:
            yield from self._apply_policy(run, position, mark, low, error)
        _log.info(
            "partition restored",
            partition=partition,
            offset=run.next.offset,
            row=run.next.row,
            seconds=round(time.monotonic() - began, 3),
        )

    def close(self) -> None:
        """Closes the reader."""
        self._reader.close()

    def check_partitions(self, given_out: int) -> None:
        """Compares how many partitions the source has with how many it had at the start.

        Args:
            given_out: So many the group knows of; a broker may be the last to learn of them.

        Raises:
            PartitionCountError: There are more; a topic never has fewer.
            TransactionAbortedError: The broker does not say.
        """
        try:
            # Not by the consumer of the group: librdkafka then fetches only after a second.
            answer = self._reader.list_topics(self._source, _METADATA_TIMEOUT_S)
            found = answer.topics[self._source]
            if found.error is not None:
                raise KafkaException(found.error)
        except KafkaException as error:
            raise TransactionAbortedError(
                f"partitions of {self._source}: {kafka_error(error).str()}"
            ) from error
        count = max(len(found.partitions), given_out)
        if count > self._partitions:
            raise self._moved(self._partitions, "when this process began", count)

    def _moved(self, before: int, when: str, now: int) -> PartitionCountError:
        return PartitionCountError(
            f"expected {self._source} to have {before} partitions as {when}, has {now}: symbols "
            f"have moved; start {self._anew}"
        )

    def _restore_chunks(
        self, run: PartitionRun, committed: int, mark: CommitMark | None, low: int
    ) -> Iterator[None]:
        if mark is None:
            raise StateNotRestorableError(
                "expected the commit to carry this program's metadata, was made by another program"
            )
        if mark.set_hash != self._set_hash:
            raise StateNotRestorableError(
                f"expected state of feature set {self._set_hash}, was of {mark.set_hash}"
            )
        if mark.resume < low:
            raise StateNotRestorableError(
                f"expected the log from offset {mark.resume} on, begins at {low}: ticks that the "
                "state needs were deleted"
            )
        chunks = yield from self._read_chunks(run.partition)
        usable = [pair for pair in chunks.values() if pair[0].origin == mark.origin]
        newest = max((head for head, _ in usable), key=lambda head: head.next_offset, default=None)
        if len(usable) < mark.chunks or (newest.next_offset if newest else 0) < mark.stored:
            raise StateNotRestorableError(
                f"expected {mark.chunks} state chunks up to offset {mark.stored} in {self._state}, "
                f"found {len(usable)}: the topic was deleted or truncated"
            )
        for head, payload in sorted(usable, key=lambda pair: pair[0].chunk):
            run.task.load_chunk(head.chunk, payload, head.next_offset)
            run.stored[head.chunk] = head.next_offset
        # At least once: a chunk can be ahead of the commit, and its rows are in the log.
        target, row = committed, mark.row
        if newest is not None and newest.next_offset > committed:
            target, row = newest.next_offset, newest.next_row
        replayed = yield from self._replay(run, mark.resume, target, mark.resume_row)
        if mark.resume_row + replayed != row:
            raise StateNotRestorableError(
                f"expected {row - mark.resume_row} rows between offsets {mark.resume} and "
                f"{target}, were {replayed}: the log or the rules of validation have changed"
            )
        run.start_at(target, row, mark.origin)

    def _apply_policy(
        self,
        run: PartitionRun,
        committed: int,
        mark: CommitMark | None,
        low: int,
        error: StateNotRestorableError,
    ) -> Iterator[None]:
        where = f"partition {run.partition} of {self._source}"
        if self._policy == "fail":
            raise StateNotRestorableError(
                f"{error} ({where}); set {self._prefix}ON_UNRESTORABLE=rebuild to recompute from "
                f"the log, =warmup to go on with empty state, or start {self._anew}"
            ) from error
        _log.warning(
            "state not restorable", partition=run.partition, policy=self._policy, reason=str(error)
        )
        run.task.reset()
        run.stored.clear()
        row = mark.row if mark else (yield from self._after_last_block(run.partition))[1]
        _, high = self._watermarks(self._source, run.partition)
        target = min(max(committed, low), high)
        begin = low if self._policy == "rebuild" else target
        replayed = yield from self._replay(run, begin, target, 0)
        run.task.shift_rows(row - replayed)
        run.start_at(target, row, f"{run.partition}:{begin}")

    def _read_chunks(self, partition: int) -> Generator[None, None, Chunks]:
        chunks: Chunks = {}
        for messages in self._read(self._state, partition, 0, None):
            for message in messages:
                key, value = message.key(), message.value()
                if key is None or value is None:
                    chunks.pop(key, None)
                    continue
                head, payload = decode_chunk(value)
                if head.set_hash != self._set_hash:
                    continue
                if head.partitions != self._partitions:
                    raise self._moved(
                        head.partitions, "when its state was written", self._partitions
                    )
                chunks[key] = (head, payload)
            yield
        return chunks

    def _replay(
        self, run: PartitionRun, begin: int, end: int, first_row: int
    ) -> Generator[None, None, int]:
        """Replays [begin, end) and returns the number of its rows."""
        rows = 0
        if begin < end:
            for messages in self._read(self._source, run.partition, begin, end):
                if messages:
                    batch = PartitionBatch(run.partition, messages).for_group(self._group)
                    rows += run.task.replay(batch, first_row + rows) if len(batch) else 0
                yield
        return rows

    def _after_last_block(self, partition: int) -> Generator[None, None, tuple[int, int]]:
        """Finds where a partition's output stands.

        Returns:
            The source offset after its last row, -1 where it has none, and the next row.
        """
        low, high = self._watermarks(self._output, partition)
        back = 16
        while high > low:
            start = max(low, high - back)
            last = None
            for messages in self._read(self._output, partition, start, high):
                last = messages[-1] if messages else last
                yield
            if last is not None:
                first, count, offset = (
                    header(last.headers(), name)
                    for name in (names.FIRST_ROW, names.ROWS, names.SOURCE_LAST_OFFSET)
                )
                return int(offset or -1) + 1, int(first or 0) + int(count or 0)
            if start == low:
                break
            back *= 16
        return -1, 0

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            return first_and_end(self._reader, TopicPartition(topic, partition), CALL_TIMEOUT_S)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected the offsets of {topic} {partition}, got none "
                f"({kafka_error(error).str()}); check the broker"
            ) from error

    def _read(self, topic: str, partition: int, start: int, end: int | None) -> Iterator[list[Any]]:
        """Yields committed messages of [start, end), or to the end of the log, in steps."""
        self._reader.assign([TopicPartition(topic, partition, start)])
        try:
            finished = False
            while not finished:
                messages = self._reader.consume(_MESSAGES_PER_STEP, _STEP_S)
                good = []
                for message in messages:
                    error = message.error()
                    if error is not None:
                        finished = finished or _ends(error, topic, partition)
                    elif end is not None and message.offset() >= end:
                        finished = True
                    else:
                        good.append(message)
                if good and end is not None and good[-1].offset() >= end - 1:
                    finished = True
                yield good
        finally:
            self._reader.unassign()


def start_anew(section: str) -> str:
    """Returns what to start where state cannot be continued.

    Args:
        section: Of the settings.
    """
    if section == "features":
        return "a new feature set under another MYSTOCKS_FEATURES__NAME"
    return "under another MYSTOCKS_ENVIRONMENT"


def _ends(error: KafkaError, topic: str, partition: int) -> bool:
    """Whether an error marks the end of the log.

    Raises:
        StateNotRestorableError: The start is not in the log any more.
        KafkaUnavailableError: The broker refuses the read.
    """
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise StateNotRestorableError(
            f"expected the log of {topic} {partition} to hold what the state needs, was deleted"
        )
    if error.retriable() or error.code() in (
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
    ):
        return False
    raise KafkaUnavailableError(
        f"expected to read {topic} {partition}, was refused ({error.str()}); check the broker"
    )
