"""The micro-batch loop: poll, compute, produce, commit, publish.

One thread makes all Kafka calls. A transaction collects the outputs of one or more batches: one
when little waits, which keeps latency low, and as many as fit into the commit interval when much
waits. State advances with the transaction and goes back with it.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator

import structlog
from confluent_kafka import KafkaError, Message, TopicPartition

from schemas.errors import MyStocksError
from schemas.processing import Produced
from streams.kafka.archive_writer import ArchiveWriter
from streams.kafka.assignment import Assignment
from streams.kafka.batch import PartitionBatch, by_partition
from streams.kafka.emission import Emission
from streams.kafka.errors import (
    MembershipLostError,
    StateNotRestorableError,
    TransactionAbortedError,
    is_fenced,
)
from streams.kafka.loop_settings import LoopSettings
from streams.kafka.output import GroupOutput
from streams.kafka.partition_clock import PartitionClock
from streams.kafka.ports import GroupConsumer, Table
from streams.kafka.sizing import BatchSizer
from streams.kafka.snapshots import encode_chunk
from streams.metrics import LoopMetrics

# How long an idle poll waits for the first message.
_IDLE_S = 0.2
# After the first message, how long to wait for those that are on their way.
_LINGER_S = 0.001
# A poll while rows wait for the table, or partitions are being restored.
_BUSY_S = 0.002
# State chunks in one transaction: bounds how much a snapshot adds to a commit.
_SNAPSHOT_BUDGET = 1024**2
# State chunks in the last commit of a drain, which make the next start short.
_DRAIN_BUDGET = 32 * 1024**2
# Partitions are given back after at most this long, with their last commit or without it.
_RELEASE_S = 5.0
# A broker that cannot commit for this many attempts in a row will not do so by itself.
_MAX_ABORTS_IN_A_ROW = 20
# How often tasks learn what time it is, so that they can act although nothing arrives.
_CLOCK_EVERY_S = 0.2
_COLLECT_GARBAGE_EVERY_S = 10.0
_OBSERVE_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class MicroBatchLoop:
    """Runs the tasks of all partitions that the group assigns to this process."""

    def __init__(
        self,
        settings: LoopSettings,
        *,
        consumer: GroupConsumer,
        output: GroupOutput,
        assignment: Assignment,
        table: Table,
        metrics: LoopMetrics,
        archive: ArchiveWriter | None = None,
        partition_clock: PartitionClock | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares a loop that has not joined the group yet.

        Args:
            settings: Names and bounds.
            consumer: Member of the group.
            output: Where records and offsets go.
            assignment: Which partitions are ours.
            table: Follows the output.
            metrics: Of this process.
            archive: Keeps snapshots of the past; None keeps none.
            partition_clock: For tasks that act by the clock; None tells them no time.
            clock: Monotonic time in seconds.
        """
        self._settings = settings
        self._consumer = consumer
        self._output = output
        self._assignment = assignment
        self._table = table
        self._metrics = metrics
        self._archive = archive
        self._partition_clock = partition_clock
        self._clock = clock
        self._emission = Emission(settings, output, metrics, clock)
        self._sizer = BatchSizer(settings.max_batch_bytes)
        self._stopping = False
        self._callback_error: MyStocksError | None = None
        self._unpublished = False
        self._aborts = 0
        self._collected = self._observed = self._told_time = clock()

    def stop(self) -> None:
        """Makes `run` finish what is in hand, commit and return."""
        self._stopping = True

    def start(self) -> None:
        """Ends what a predecessor left open and joins the group; `run` begins with it."""
        self._output.start()
        self._assignment.subscribe(self._before_release)

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs until `stop`.

        Args:
            on_ready: Called once the first assignment is being processed.

        Raises:
            FencedError: Another process has taken over.
            StateNotRestorableError: See `Restorer`.
        """
        self.start()
        ready = clean = False
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            while not self._stopping:
                self.step()
                if not ready and self._assignment.settled:
                    ready = True
                    on_ready()
            self._drain()
            clean = True
        finally:
            gc.enable()
            self._output.close()
            if clean:
                # After an error this may wait a minute, for nothing that matters.
                self._assignment.close()

    def step(self) -> None:
        """Does one round: restore a little, poll, compute, commit if due, publish."""
        try:
            if self._assignment.advance(may_restore=not self._output.open):
                self._unpublished = True
            self._raise_callback_error()
            messages, backlog = self._poll()
            if messages:
                self._process(messages)
            self._tell_time()
            if self._output.open:
                self._finish_batch(settle=bool(messages) and not backlog, idle=not backlog)
        except TransactionAbortedError as error:
            self._abort(error)
        self._publish()
        self._observe(idle=not self._output.open)

    def _poll(self) -> tuple[list[Message], bool]:
        """Returns messages of live partitions, and whether more were waiting."""
        began, epoch = self._clock(), self._assignment.epoch
        wanted = self._sizer.messages
        messages = self._consumer.consume(wanted, self._output.rest_s)
        patience = self._patience()
        if not messages and patience > 0:
            messages = self._consumer.consume(1, patience)
            if messages and wanted > 1:
                messages += self._consumer.consume(wanted - 1, _LINGER_S)
        backlog = len(messages) >= wanted
        self._metrics.stage("poll", self._clock() - began)
        if any(map(Message.error, messages)):
            messages = [message for message in messages if self._is_data(message)]
        if epoch != self._assignment.epoch:
            # What was polled around a rebalance may belong to a position that is not ours any
            # more. Reading it again is always right.
            self._raise_callback_error()
            self._assignment.seek_all()
            return [], False
        return messages, backlog

    def _patience(self) -> float:
        """Returns how long to wait for the first message, in seconds."""
        if self._output.open and not self._output.visible_when_settled:
            return 0.0
        if self._unpublished or not self._assignment.settled:
            return _BUSY_S
        if not self._output.open:
            return _IDLE_S
        return self._emission.due_in_s

    def _setting(self, name: str) -> str:
        return f"MYSTOCKS_{self._settings.section.upper()}__{name}"

    def _is_data(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return True
        if is_fenced(error) or error.fatal() or error.code() == KafkaError._FATAL:
            raise MembershipLostError(
                f"expected to be the member of group {self._settings.group} with this instance "
                f"id, is it no more ({error.str()}); start the role again. If this goes on, two "
                f"processes have one slot ({self._setting('SLOT')})"
            )
        number = message.partition()
        run = None if number is None else self._assignment.runs.get(number)
        if error.code() == KafkaError._PARTITION_EOF:
            if run is not None:
                run.end_seen = message.offset()
            return False
        lost = error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
        if lost and run is not None and run.live:
            raise StateNotRestorableError(
                f"expected {self._settings.source} {run.partition} to hold offset "
                f"{run.next.offset}, was deleted before it was processed; raise retention.bytes, "
                f"then restart the role, which applies {self._setting('ON_UNRESTORABLE')}"
            )
        if not lost:
            _log.warning("kafka", error=error.str(), code=error.name())
        return False

    def _process(self, messages: list[Message]) -> None:
        total = 0
        for batch in self._ours(messages):
            run = self._assignment.runs[batch.partition]
            total += batch.size
            mine = batch.for_group(self._settings.group)
            produced = run.task.process(mine, run.next.row) if len(mine) else Produced()
            self._emission.emit(run, produced, mine)
            run.next.offset = batch.next_offset
            run.next.row += produced.rows
            self._metrics.batch(produced, len(batch))
        self._sizer.observe(len(messages), total)

    def _ours(self, messages: list[Message]) -> Iterator[PartitionBatch]:
        """Yields batches of live partitions, without what was processed before."""
        for batch in by_partition(messages):
            run = self._assignment.runs.get(batch.partition)
            if run is None or not run.live:
                continue
            if batch.first_offset > run.next.offset and run.gap_end != batch.first_offset:
                # Aborted or compacted records leave gaps, and so would a lost position. Only
                # what is missing twice is not in the log.
                run.gap_end = batch.first_offset
                self._assignment.seek(run)
            elif batch.first_offset >= run.next.offset:
                yield batch
            elif kept := [m for m in batch.messages if m.offset() >= run.next.offset]:
                yield PartitionBatch(batch.partition, kept)

    def _tell_time(self) -> None:
        """Lets the tasks of live partitions act by the clock, in a transaction like a batch."""
        now = self._clock()
        if self._partition_clock is None or now - self._told_time < _CLOCK_EVERY_S:
            return
        self._told_time = now
        for run, wall_ns in self._partition_clock.look(self._assignment.live):
            produced = run.task.on_clock(wall_ns)
            if produced is not None:
                run.clocked_by(wall_ns)
                self._emission.emit(run, produced, None)
                self._metrics.produced(produced)

    def _finish_batch(self, *, settle: bool, idle: bool) -> None:
        """Makes rows visible: by a commit, or at least once by settling them.

        Offsets committed at least once cost a round trip that no reader waits for, so those are
        committed only when due.
        """
        due = self._emission.due_in_s == 0
        if due or (idle and not self._output.visible_when_settled):
            self._commit(_SNAPSHOT_BUDGET)
        elif settle:
            self._output.settle()
            self._unpublished = True

    def _commit(self, snapshot_budget: int, *, last: bool = False) -> None:
        began = self._clock()
        settings = self._settings
        self._output.settle()
        runs = [
            run
            for run in self._assignment.runs.values()
            if run.advanced or run.clocked or (last and run.live and run.unsaved)
        ]
        budget = snapshot_budget
        for run in runs:
            # What the clock has changed cannot be recomputed from the log.
            if budget <= 0 and not run.clocked:
                continue
            due = run.task.due_chunks(math.inf if last else began, max(budget, 0))
            for chunk, payload in due:
                head = run.store(chunk, settings.set_hash, settings.partitions)
                value = encode_chunk(head, payload)
                self._output.produce(settings.state, value, run.partition, key=head.key)
                budget -= len(value)
        if self._archive is not None and snapshot_budget > 0:
            self._archive.produce(self._output, [run for run in runs if run.advanced])
        stored = self._clock()
        offsets = [
            TopicPartition(
                settings.source,
                run.partition,
                run.next.offset,
                metadata=run.mark(settings.set_hash).encode(),
            )
            for run in runs
        ]
        self._output.commit(offsets, self._consumer.consumer_group_metadata())
        for run in runs:
            run.commit()
        self._aborts = 0
        self._unpublished = True
        self._metrics.stage("snapshot", stored - began)
        self._metrics.stage("commit", self._clock() - stored)
        self._metrics.committed()

    def _abort(self, error: TransactionAbortedError) -> None:
        """Puts state and positions back to the last commit."""
        self._aborts += 1
        self._metrics.aborted()
        _log.warning("transaction aborted", reason=str(error), in_a_row=self._aborts)
        if self._aborts > _MAX_ABORTS_IN_A_ROW:
            raise error
        self._output.abort()
        self._roll_back()
        self._assignment.seek_all()
        time.sleep(min(0.01 * 2**self._aborts, 1.0))

    def _before_release(self, lost: bool) -> None:
        """Commits what is open while the partitions are still ours; called inside a poll.

        What cannot be committed soon is taken back. The broker learns of that after the poll:
        nobody waits for the end of a transaction that commits nothing.
        """
        if not self._output.open:
            return
        try:
            if lost:
                raise TransactionAbortedError("partitions lost")
            with self._output.within(_RELEASE_S):
                self._commit(0)
        except TransactionAbortedError as error:
            self._roll_back()
            self._callback_error = error
        except MyStocksError as error:
            self._callback_error = error

    def _roll_back(self) -> None:
        for run in self._assignment.live:
            run.rollback()
        if self._archive is not None:
            self._archive.rollback()

    def _raise_callback_error(self) -> None:
        if self._callback_error is not None:
            error, self._callback_error = self._callback_error, None
            raise error

    def _publish(self) -> None:
        if self._table.needs_everything:
            for run in self._assignment.runs.values():
                run.task.touch_all()
            self._unpublished = True
        hidden = self._output.open and not self._output.visible_when_settled
        if not self._unpublished or hidden or not self._table.ready:
            return
        began = self._clock()
        rows = [run.task.take_latest() for run in self._assignment.live]
        self._table.offer([latest for latest in rows if latest is not None])
        self._unpublished = False
        self._metrics.stage("table", self._clock() - began)

    def _observe(self, *, idle: bool) -> None:
        now = self._clock()
        if now - self._observed >= _OBSERVE_EVERY_S:
            self._observed = now
            for run in self._assignment.runs.values():
                part = TopicPartition(self._settings.source, run.partition)
                marks = self._consumer.get_watermark_offsets(part, cached=True)
                if run.live and marks is not None and marks[1] >= 0:
                    self._metrics.lag(run.partition, max(marks[1] - run.next.offset, 0))
        if idle and now - self._collected >= _COLLECT_GARBAGE_EVERY_S:
            self._collected = now
            gc.collect()

    def _drain(self) -> None:
        """Commits what is open, with as much state as makes the next start short."""
        if self._callback_error is None:
            try:
                if any(run.unsaved for run in self._assignment.live):
                    self._output.begin()
                if self._output.open:
                    self._commit(_DRAIN_BUDGET, last=True)
            except TransactionAbortedError as error:
                _log.warning("last transaction aborted; it will be repeated", reason=str(error))
                self._metrics.aborted()
                self._roll_back()
        self._publish()
        self._table.close(timeout_s=5.0)
