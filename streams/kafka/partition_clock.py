"""What time it is for each partition: silence counts only where the log was read.

A symbol whose ticks wait in the log is not silent, and neither is one whose feed waits for the
broker. So a task is told no later time than one at which everything that its log then held is
processed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from streams.kafka.partition_run import PartitionRun
from streams.kafka.ports import LogEnds

# A producer that lost its broker tries at least this often whether it is back (librdkafka's
# reconnect.backoff.max.ms), and then sends what it has kept.
_AFTER_RETURN_NS = 10 * 10**9


class _End(NamedTuple):
    """Where a log ended, and when: everything below belongs to the past of that moment."""

    offset: int
    asked_ns: int


class PartitionClock:
    """Tells the time of partitions.

    Args:
        ends: Where their logs end.
        wall_clock: Nanoseconds since 1970 (UTC).
    """

    def __init__(self, ends: LogEnds, wall_clock: Callable[[], int] = time.time_ns) -> None:
        self._ends = ends
        self._wall_clock = wall_clock
        self._asked: list[int] = []
        self._asked_ns = 0
        self._reached: dict[int, _End] = {}
        self._goals: dict[int, _End] = {}
        self._not_before: dict[int, int] = {}

    def look(self, runs: Sequence[PartitionRun]) -> Iterator[tuple[PartitionRun, int]]:
        """Yields the partitions whose time is known, with it; never waits.

        Args:
            runs: Live partitions; everything that was polled of them is processed.
        """
        self._reach(runs)
        answer = self._ends.answer()
        if answer is not None:
            self._take(answer)
        self._forget_all_but({run.partition for run in runs})
        self._reach(runs)
        if answer is not None:
            self._asked, self._asked_ns = [run.partition for run in runs], self._wall_clock()
            self._ends.ask(self._asked)
        for run in runs:
            end = self._reached.get(run.partition)
            if end is None or end.asked_ns < self._not_before.get(run.partition, 0):
                continue
            if run.read_until >= end.offset:
                # Once: a symbol whose ticks are processed from here on was not silent since then.
                del self._reached[run.partition]
                yield run, end.asked_ns

    def _forget_all_but(self, ours: set[int]) -> None:
        """A partition that comes back has ticks of meanwhile in front of it."""
        for known in (self._reached, self._goals):
            for partition in known.keys() - ours:
                del known[partition]

    def _reach(self, runs: Sequence[PartitionRun]) -> None:
        for run in runs:
            goal = self._goals.get(run.partition)
            if goal is not None and run.read_until >= goal.offset:
                self._reached[run.partition] = self._goals.pop(run.partition)

    def _take(self, answer: dict[int, int]) -> None:
        """Notes new ends; one that is not reached yet stays, or a long backlog would have none."""
        for partition in self._asked:
            if partition in answer:
                end = _End(answer[partition], self._asked_ns)
                self._goals.setdefault(partition, end)
            else:
                self._not_before[partition] = self._wall_clock() + _AFTER_RETURN_NS
