"""Runs a planned replay: read, compute, write what is due, commit how far it has come.

Rows and progress are one transaction, so that a replay which is killed and started again goes on
with the row after the last one that readers can see. It computes from the beginning again to get
there: that is as fast as a replay without pacing, and nothing else has to be right.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from confluent_kafka import TopicPartition

from streams.kafka.batch import PartitionBatch
from streams.kafka.output import Output
from streams.kafka.replay.clock import END_OF_TIME_NS, EventClock
from streams.kafka.replay.control import ReplayControl
from streams.kafka.replay.lane import Lane

# A paced replay shows rows this long after their time at the latest.
_COMMIT_PACED_S = 0.1
# Without pacing nobody waits for a single row, and while a transaction ends nothing is computed.
_COMMIT_S = 2.0
_MOST_TRANSACTION_BYTES = 512 * 1024**2
# Rows of one partition that wait for their time, beyond those of the batch that brought them.
_MOST_PENDING = 20_000
# How far ahead of the clock partitions are read, wall clock.
_READ_AHEAD_S = 0.5
# An idle moment; also bounds how late a change of `ReplayControl` is seen.
_IDLE_S = 0.1

Outcome = Literal["finished", "cancelled", "released"]


class Reader(Protocol):
    """Where messages come from; see `streams.kafka.replay.reader.LogReader`."""

    def poll(self, wanted: list[int], timeout_s: float) -> list[PartitionBatch]:
        """Returns next messages of the wanted partitions."""

    def exhausted(self, partition: int) -> bool:
        """Whether everything of a partition was handed out."""


@dataclass(frozen=True, slots=True)
class ReplayTopics:
    """Names in the log.

    Attributes:
        source: Topic that is read.
        output: Topic that is written.
        set_hash: Identity of the computation.
        backend: Where it runs.
    """

    source: str
    output: str
    set_hash: str
    backend: str


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is.

    Attributes:
        rows: Rows in the output, committed.
        fraction: From 0 to 1, by offsets.
        event_time_ns: Newest event time in the output by this process; 0 before the first row.
        paused: Whether the clock stands.
    """

    rows: int = 0
    fraction: float = 0.0
    event_time_ns: int = 0
    paused: bool = False


class ReplayDriver:
    """Replays the partitions of one source.

    Args:
        topics: What is read and written.
        lanes: By partition.
        reader: Of the partitions, from each plan's `begin` to its `end`.
        output: Transactions; started.
        group: Metadata of the run's consumer group.
        clock: Says which event time it is.
        control: How others pause and end it.
        end_ns: Event time before which the last row is; None is no bound.
        on_progress: Called after every commit, and a few times a second while nothing happens.
        wall: Monotonic seconds.
    """

    def __init__(
        self,
        topics: ReplayTopics,
        lanes: Mapping[int, Lane],
        *,
        reader: Reader,
        output: Output,
        group: Any,
        clock: EventClock,
        control: ReplayControl,
        end_ns: int | None = None,
        on_progress: Callable[[ReplayProgress], None] = lambda _progress: None,
        wall: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = topics
        self._lanes = lanes
        self._reader = reader
        self._output = output
        self._group = group
        self._clock = clock
        self._control = control
        self._end_ns = END_OF_TIME_NS if end_ns is None else end_ns
        self._on_progress = on_progress
        self._wall = wall
        self._began = 0.0
        self._bytes = 0
        self._newest_ns = 0
        self._committed_ns = 0
        self._reported = wall()
        self._written = {partition: lane.row for partition, lane in lanes.items()}

    def run(self) -> Outcome:
        """Runs to the end, or until `ReplayControl` says otherwise.

        Raises:
            TransactionAbortedError: Nothing since the last commit is in the output; build a new
                driver and run that.
            FencedError: The run was started elsewhere.
            RecordsLostError: What was to be read was deleted.
        """
        self._report(at_once=True)
        while self._control.ending is None:
            if self._control.paused:
                self._stand_still()
            elif self.step():
                self._commit()
                return "finished"
        self._commit()
        return self._control.ending

    def step(self) -> bool:
        """Does one round; returns whether everything was written."""
        wanted = self._wanted()
        for batch in self._reader.poll(wanted, self._patience(wanted)):
            self._lanes[batch.partition].take(batch, keep=self._clock.paced)
            if not self._clock.paced:
                self._write(self._lanes[batch.partition], self._clock.now_ns())
                self._commit_if_due()
        for partition, lane in self._lanes.items():
            if not lane.finished and self._reader.exhausted(partition):
                lane.finish(keep=self._clock.paced)
                if not self._clock.paced:
                    self._write(lane, self._clock.now_ns())
        if self._clock.paced:
            self._start_clock()
            bound = min(self._clock.now_ns(), self._known_until_ns())
            for lane in self._lanes.values():
                self._write(lane, bound)
        self._commit_if_due()
        self._report()
        return not any(self._is_open(p) for p in self._lanes)

    def _is_open(self, partition: int) -> bool:
        lane = self._lanes[partition]
        return bool(lane.pending) or not lane.finished

    def _wanted(self) -> list[int]:
        """Returns the partitions to read on: of a paced replay those that are not far ahead."""
        unread = [p for p in self._lanes if not self._reader.exhausted(p)]
        if not self._clock.paced:
            return unread
        ahead_ns = self._clock.now_ns() + int(_READ_AHEAD_S * (self._clock.speed or 0) * 1e9)
        if not self._clock.anchored:
            # The clock starts with the first row of all, so every partition's first one is needed.
            firsts = [lane.next_due_ns() for lane in self._lanes.values()]
            ahead_ns = min((first for first in firsts if first is not None), default=END_OF_TIME_NS)
        return [
            p
            for p in unread
            # Behind the range there are hardly any rows, and for none of them to wait.
            if (self._lanes[p].horizon_ns <= ahead_ns or self._lanes[p].horizon_ns >= self._end_ns)
            and (self._lanes[p].pending < _MOST_PENDING or self._lanes[p].undecided)
        ]

    def _patience(self, wanted: list[int]) -> float:
        """Returns how long to wait for messages, in seconds; waits here if none are wanted."""
        if not self._clock.paced or not self._clock.anchored:
            return _IDLE_S
        dues = [due for lane in self._lanes.values() if (due := lane.next_due_ns()) is not None]
        due_s = min((self._clock.wait_s(due) for due in dues), default=_IDLE_S)
        if self._output.open:
            due_s = min(due_s, max(0.0, self._began + _COMMIT_PACED_S - self._wall()))
        patience = min(due_s, _IDLE_S)
        if wanted:
            return patience
        self._control.wait(patience)
        return 0.0

    def _start_clock(self) -> None:
        if self._clock.anchored:
            return
        dues = [due for lane in self._lanes.values() if (due := lane.next_due_ns()) is not None]
        if dues and self._known_until_ns() >= min(dues):
            self._clock.anchor(min(dues))

    def _known_until_ns(self) -> int:
        """Returns the event time up to which the ticks of all partitions are known."""
        horizons = [
            lane.horizon_ns for p, lane in self._lanes.items() if not self._reader.exhausted(p)
        ]
        return min(horizons, default=END_OF_TIME_NS)

    def _write(self, lane: Lane, bound_ns: int) -> None:
        topics = self._topics
        for piece in lane.pieces(bound_ns):
            if not self._output.open:
                self._output.begin()
                self._began, self._bytes = self._wall(), 0
            self._output.produce(
                topics.output,
                piece.value,
                lane.plan.partition,
                headers=piece.headers(topics.set_hash, lane.plan.origin, topics.backend),
                timestamp_ms=piece.newest_ns // 1_000_000,
            )
            self._bytes += len(piece.value)
            self._newest_ns = max(self._newest_ns, piece.newest_ns)

    def _commit_if_due(self) -> None:
        if not self._output.open:
            return
        interval = _COMMIT_PACED_S if self._clock.paced else _COMMIT_S
        late = self._wall() - self._began >= interval
        if late or self._bytes >= _MOST_TRANSACTION_BYTES:
            self._commit()

    def _commit(self) -> None:
        if self._output.open:
            self._output.commit(self._offsets(), self._group)
            self._committed_ns = self._newest_ns
            for partition, lane in self._lanes.items():
                self._written[partition] = lane.row
        self._report(at_once=True)

    def _offsets(self) -> list[TopicPartition]:
        return [
            TopicPartition(
                self._topics.source, p, lane.position, metadata=lane.plan.reached(lane.row).encode()
            )
            for p, lane in self._lanes.items()
        ]

    def _report(self, *, at_once: bool = False) -> None:
        now = self._wall()
        if not at_once and now - self._reported < _IDLE_S:
            return
        self._reported = now
        done = sum(lane.position - lane.plan.begin for lane in self._lanes.values())
        whole = sum(lane.plan.end - lane.plan.begin for lane in self._lanes.values())
        self._on_progress(
            ReplayProgress(
                rows=sum(self._written.values()),
                fraction=min(1.0, done / whole) if whole > 0 else 1.0,
                event_time_ns=self._committed_ns,
                paused=self._control.paused,
            )
        )

    def _stand_still(self) -> None:
        self._commit()
        self._clock.pause()
        while self._control.paused and self._control.ending is None:
            self._control.wait(_IDLE_S)
        self._clock.resume()
        self._report(at_once=True)
