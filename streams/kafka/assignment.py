"""Which partitions are ours: rebalance callbacks only note it, the loop acts on it.

An exception in a callback would surface from the poll after its messages are gone, so callbacks
raise nothing. A partition that is given back keeps its state for the case that it returns at once
(a stop-the-world rebalance returns most of them): the committed offset tells whether somebody else
has worked on it in between.
"""

import time
from collections.abc import Callable, Generator
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from streams.kafka.clients import CALL_TIMEOUT_S, resume_at_once
from streams.kafka.errors import (
    KafkaUnavailableError,
    MembershipLostError,
    TransactionAbortedError,
    kafka_error,
)
from streams.kafka.partition_run import PartitionRun
from streams.kafka.ports import GroupConsumer, TaskFactory
from streams.kafka.restore import Restorer
from streams.kafka.snapshots import CommitMark
from streams.metrics import LoopMetrics

# A coordinator that is not there for longer is asked again, and polls go on in between.
_COMMITTED_TIMEOUT_S = 3.0
# A client may wait for ever for a coordinator that came back under it; a new one does not.
_MOST_UNANSWERED = 3

_log = structlog.get_logger(__name__)


class Assignment:
    """The partitions of one topic that the group has assigned to this process.

    Attributes:
        runs: Assigned partitions by number, live or waiting to be restored.
        epoch: Grows with every rebalance; a batch polled under another epoch is not ours.
    """

    def __init__(
        self,
        source: str,
        set_hash: str,
        *,
        consumer: GroupConsumer,
        restorer: Restorer,
        new_task: TaskFactory,
        metrics: LoopMetrics,
        incremental: bool = False,
    ) -> None:
        """Prepares to join.

        Args:
            source: Topic.
            set_hash: Identity of the computation.
            consumer: Member of the group.
            restorer: Brings partitions to their starting position.
            new_task: Makes the task of a partition.
            metrics: Of this process.
            incremental: Whether the group moves partitions one by one instead of all at once.
        """
        self._incremental = incremental
        self.runs: dict[int, PartitionRun] = {}
        self.epoch = 0
        self._source = source
        self._set_hash = set_hash
        self._consumer = consumer
        self._restorer = restorer
        self._new_task = new_task
        self._metrics = metrics
        self._parked: dict[int, PartitionRun] = {}
        # Between the release of everything and the next assignment, over any number of polls.
        self._between = False
        self._unanswered = 0
        self._counted = False
        self._restoring: tuple[PartitionRun, Generator[None, None, None]] | None = None

    def subscribe(self, before_release: Callable[[bool], None]) -> None:
        """Joins the group.

        Args:
            before_release: Called before partitions go, with whether nothing may be committed any
                more; must not raise.
        """

        def on_assign(_consumer: Any, partitions: list[TopicPartition]) -> None:
            self.epoch += 1
            self._counted = self._between = False
            self._take(partitions)
            for number in sorted(part.partition for part in partitions):
                self.runs[number] = PartitionRun(number, self._new_task(number))
            _log.info("assigned", partitions=sorted(self.runs))

        def on_revoke(_consumer: Any, partitions: list[TopicPartition]) -> None:
            self.epoch += 1
            before_release(False)
            self._release(partitions, park=True)

        def on_lost(_consumer: Any, partitions: list[TopicPartition]) -> None:
            self.epoch += 1
            before_release(True)
            self._release(partitions, park=False)

        self._consumer.subscribe(
            [self._source], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost
        )

    @property
    def live(self) -> list[PartitionRun]:
        """Partitions whose messages are being processed."""
        return [run for run in self.runs.values() if run.live]

    @property
    def settled(self) -> bool:
        """Whether a first assignment came and all of it is live."""
        return self.epoch > 0 and all(run.live for run in self.runs.values())

    def advance(self, *, may_restore: bool) -> bool:
        """Does one short step towards making every partition live.

        Args:
            may_restore: Whether a restore may begin now; not while a transaction is open.

        Returns:
            Whether a partition went live.

        Raises:
            PartitionCountError: The topic has got other partitions since the start.
            TransactionAbortedError: The broker did not answer; try again.
        """
        before = len(self.live)
        if self._restoring is None:
            waiting = [run for run in self.runs.values() if not run.live]
            if not waiting:
                if not self._between:
                    self._parked.clear()
                return False
            if may_restore:
                self._count()
                self._begin(waiting[0])
        if self._restoring is not None:
            run, steps = self._restoring
            began = time.monotonic()
            try:
                next(steps)
            except StopIteration:
                self._restoring = None
                self._go_live(run)
            self._metrics.restoring(time.monotonic() - began)
        return len(self.live) > before

    def seek_all(self) -> None:
        """Moves the consumer to the next unprocessed message of every live partition."""
        for run in self.live:
            self.seek(run)

    def seek(self, run: PartitionRun) -> None:
        """Moves the consumer to the next unprocessed message of a partition.

        Raises:
            KafkaUnavailableError: The position was not taken in time.
        """
        run.end_seen = -1
        target = TopicPartition(self._source, run.partition, run.next.offset)
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                self._consumer.seek(target)
                return
            except KafkaException as error:
                # A partition whose fetcher is not running yet refuses to seek.
                if time.monotonic() > deadline:
                    raise KafkaUnavailableError(
                        f"expected to seek {self._source} {run.partition} to {run.next.offset}, "
                        f"was refused ({kafka_error(error).str()}); check the broker, then "
                        "restart the role"
                    ) from error
                time.sleep(0.01)

    def close(self) -> None:
        """Leaves the group and stops reading."""
        self._consumer.close()
        self._restorer.close()

    def _take(self, partitions: list[TopicPartition]) -> None:
        """Starts fetching nothing: the position comes with the end of the restore.

        Until then a partition stands, paused, at the start of its log, as a number: librdkafka
        looks a logical position up a second time, half a second later, when a seek comes before
        the first answer, and then jumps there. A position that does not exist cannot be left by
        a seek.
        """
        parts = self._first_positions([part.partition for part in partitions])
        if self._incremental:
            self._consumer.incremental_assign(parts)
        else:
            self._consumer.assign(parts)
        self._consumer.pause(parts)

    def _first_positions(self, numbers: list[int]) -> list[TopicPartition]:
        if not numbers:
            return []
        wanted = [TopicPartition(self._source, number, OFFSET_BEGINNING) for number in numbers]
        try:
            found = self._consumer.offsets_for_times(wanted, CALL_TIMEOUT_S)
        except KafkaException as error:
            _log.warning("start of the log unknown", error=kafka_error(error).str())
            found = wanted
        return [TopicPartition(self._source, p.partition, max(p.offset, 0)) for p in found]

    def _count(self) -> None:
        """Makes sure that an assignment is of the partitions that the start was for.

        With more of them symbols are elsewhere, and the topics written to may not have them.
        """
        if not self._counted:
            self._restorer.check_partitions(max(self.runs) + 1)
            self._counted = True

    def _begin(self, run: PartitionRun) -> None:
        source = TopicPartition(self._source, run.partition)
        try:
            committed = self._consumer.committed([source], _COMMITTED_TIMEOUT_S)[0]
        except KafkaException as error:
            self._unanswered += 1
            if self._unanswered > _MOST_UNANSWERED:
                raise MembershipLostError(
                    f"expected the coordinator of the group to answer, did not {self._unanswered} "
                    f"times in a row ({kafka_error(error).str()}); start the role again"
                ) from error
            raise TransactionAbortedError(
                f"committed offset: {kafka_error(error).str()}"
            ) from error
        self._unanswered = 0
        if committed.error is not None:
            raise TransactionAbortedError(f"committed offset: {committed.error.str()}")
        parked = self._parked.pop(run.partition, None)
        if (
            parked is not None
            and committed.offset == parked.committed.offset
            and parked.is_committed_by(CommitMark.decode(committed.metadata), self._set_hash)
        ):
            self.runs[run.partition] = parked
            self._go_live(parked)
            return
        self._restoring = (run, self._restorer.restore(run, committed))

    def _go_live(self, run: PartitionRun) -> None:
        self.seek(run)
        run.live = True
        run.task.touch_all()
        resume_at_once(self._consumer, [TopicPartition(self._source, run.partition)])

    def _release(self, partitions: list[TopicPartition], *, park: bool) -> None:
        for part in partitions:
            run = self.runs.pop(part.partition, None)
            if self._restoring is not None and self._restoring[0] is run:
                self._restoring[1].close()
                self._restoring = None
            if park and run is not None and run.live:
                run.live = False
                self._parked[part.partition] = run
        self._between = not self.runs
        _log.info("released", partitions=sorted(part.partition for part in partitions), kept=park)
