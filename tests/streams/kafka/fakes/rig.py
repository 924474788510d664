"""A loop, with everything around it, on the broker in memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from schemas.processing import LatestRows
from streams.kafka.assignment import Assignment
from streams.kafka.loop import MicroBatchLoop
from streams.kafka.loop_settings import LoopSettings
from streams.kafka.partition_clock import PartitionClock
from streams.kafka.ports import PartitionTask
from streams.kafka.restore import Restorer
from streams.metrics import LoopMetrics
from tests.streams.kafka.fakes.broker import DEAD, GROUP, LATE, OUTPUT, SOURCE, STATE, Broker
from tests.streams.kafka.fakes.consumer import FakeConsumer, FakeLogEnds
from tests.streams.kafka.fakes.producer import SteppedOutput
from tests.streams.kafka.fakes.task import SumTask


class FakeTable:
    """Keeps the latest rows, newer ones only."""

    ready = True

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.needs_everything = False
        self.rows: dict[str, tuple[int, float]] = {}

    def offer(self, rows: Sequence[LatestRows]) -> None:
        self._broker.reach("table")
        for latest in rows:
            for i, symbol in enumerate(latest.symbols):
                self.rows[symbol] = (int(latest.row[i]), float(latest.values[i, 0]))
        self._broker.reach("table written")

    def close(self, timeout_s: float) -> None:
        pass


@dataclass
class Rig:
    """A loop on a fake broker.

    With a commit interval, transactions stay open over several polls, as they do in a backlog.
    """

    broker: Broker
    policy: str = "fail"
    set_hash: str = "h"
    by_clock: bool = False
    rows_before_commits: bool = False
    seconds_a_look: float = 0.006
    commit_interval_s: float = 0.0
    max_batch_bytes: int = 20
    slot: str = ""
    wall_clock: Callable[[], int] = time.time_ns
    new_task: Callable[[int], PartitionTask] | None = None
    table: FakeTable = field(init=False)
    consumer: FakeConsumer = field(init=False)
    output: SteppedOutput = field(init=False)
    loop: MicroBatchLoop = field(init=False)

    def __post_init__(self) -> None:
        self.table = FakeTable(self.broker)
        self.slot = self.slot or f"slot {next(self.broker.slots)}"
        self.restart()

    def restart(self) -> None:
        """Starts a new process on the same broker and table."""
        broker, metrics = self.broker, LoopMetrics()
        self.consumer = FakeConsumer(broker)
        self.assignment = Assignment(
            SOURCE,
            self.set_hash,
            consumer=self.consumer,
            restorer=Restorer(
                FakeConsumer(broker, in_group=False),
                source=SOURCE,
                output=OUTPUT,
                state=STATE,
                partitions=broker.partitions,
                set_hash=self.set_hash,
                policy=self.policy,
                rows_before_commits=self.rows_before_commits,
            ),
            new_task=self.new_task or (lambda p: SumTask(p, broker, self.by_clock)),
            metrics=metrics,
            incremental=True,
        )
        self.output = SteppedOutput(broker, self.slot)
        # By default tasks are told the time every few steps.
        scripted = self.by_clock or self.commit_interval_s > 0
        clock = partial(next, count(step=self.seconds_a_look)) if scripted else time.monotonic
        self.loop = MicroBatchLoop(
            LoopSettings(
                section="features",
                source=SOURCE,
                output=OUTPUT,
                dead_letter=DEAD,
                late=LATE,
                state=STATE,
                group=GROUP,
                partitions=broker.partitions,
                set_hash=self.set_hash,
                backend="cpu",
                commit_interval_s=self.commit_interval_s,
                max_batch_bytes=self.max_batch_bytes,
            ),
            consumer=self.consumer,
            output=self.output,
            assignment=self.assignment,
            table=self.table,
            metrics=metrics,
            partition_clock=PartitionClock(FakeLogEnds(broker), self.wall_clock),
            clock=clock,
        )
        self.loop.start()

    def assign(self, *partitions: int) -> None:
        self.consumer.rebalance("assign", partitions)

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.loop.step()

    def settle(self, limit: int = 500) -> None:
        """Steps until everything in the log is processed."""
        for _ in range(limit):
            self.loop.step()
            runs = self.assignment.live
            if len(runs) == len(self.assignment.runs) and all(
                run.committed.offset == len(self.broker.log(SOURCE, run.partition)) for run in runs
            ):
                self.loop.step()
                return
        raise AssertionError("the loop does not come to an end")
