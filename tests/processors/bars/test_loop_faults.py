"""Every bar exactly once, whatever happens at whichever step of the loop, by the clock or not.

Peers forget timers over a restart (bytewax #138) or never close (quixstreams #790).
"""

import math
from collections import Counter
from functools import cache, partial
from types import SimpleNamespace

import pytest

from processors.bars.rules import BarRules
from processors.bars.task import BarTask
from schemas.ticks import SymbolTable, TickDecoder
from streams.kafka.errors import TransactionAbortedError
from tests.processors.bars.rig import SECOND, Bar, bars_in, calendars, last_revisions, tick
from tests.streams.kafka.fakes import LATE, SOURCE, Broker, CrashError, Rig
from tests.streams.kafka.test_loop_faults import crash_at

INTERVALS = ("1s", "1m")
STEPS = (
    "consume",
    "begin",
    "produce",
    "settle",
    "snapshot",
    "before commit",
    "after commit",
)
T0 = 1_700_002_800 * SECOND
DECODER = TickDecoder()


def new_task(partition: int, rules: BarRules, idle_timeout_ns: int = 1) -> BarTask:
    return BarTask(
        partition,
        rules,
        calendars(),
        DECODER,
        INTERVALS,
        partial(SymbolTable, 100),
        # By default every look at the clock but the first after a tick closes bars.
        idle_timeout_ns=idle_timeout_ns,
        snapshot_interval_s=0.001,
    )


def filled() -> Broker:
    """A broker on which ticks of three symbols a partition arrive, some of them late."""
    broker = Broker()
    broker.arriving = 1
    for i in range(60):
        partition = i % 2
        time = T0 + (i // 6) * 7 * SECOND - (40 * SECOND if i % 23 == 20 else 0)
        value = tick(f"S{partition}{i % 3}", time, 1.0 + i)
        broker.append(SOURCE, partition, value, timestamp_ms=time // 1_000_000)
    return broker


def bars(broker: Broker) -> list[Bar]:
    return [
        bar
        for interval in INTERVALS
        for partition in (0, 1)
        for message in broker.log(interval, partition)
        for bar in bars_in(message.value(), interval)
    ]


def run(broker: Broker, **rules: object) -> None:
    rig = Rig(
        broker,
        by_clock=True,
        new_task=partial(new_task, rules=BarRules.of(INTERVALS, allowed_lateness_ns=0, **rules)),
        # Room for what arrives between two polls, so that no backlog keeps the clock silent ...
        max_batch_bytes=200,
        # ... and it speaks after nearly every batch.
        seconds_a_look=0.01,
    )
    rig.assign(0, 1)
    rig.settle()
    # Until the clock has closed everything.
    rig.steps(20)


def outcome(broker: Broker) -> tuple[dict, list]:
    """Returns the bars that count, without their revision, and what was late."""
    counting = {key: bar._replace(revision=0) for key, bar in last_revisions(bars(broker)).items()}
    late = [message.value() for partition in (0, 1) for message in broker.log(LATE, partition)]
    return counting, late


@cache
def undisturbed(**rules: object) -> tuple[dict, list, Counter]:
    """Returns the outcome, and how often each step was reached."""
    broker = filled()
    run(broker, **rules)
    return *outcome(broker), broker.reached


@pytest.mark.parametrize("late_ticks", ["late_topic", "correct"])
def test_the_clock_closes_what_the_last_ticks_left_open(late_ticks):
    counting, late, _ = undisturbed(late_ticks=late_ticks)
    trades = sum(bar.trades for bar in counting.values() if bar.interval == "1m")
    assert trades + len(late) == 60
    assert bool(late) == (late_ticks == "late_topic")


@pytest.mark.parametrize("late_ticks", ["late_topic", "correct"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_neither_loses_nor_doubles_a_bar(step, late_ticks):
    *expected, reached = undisturbed(late_ticks=late_ticks)
    hits = reached[step]
    assert hits > 12
    # Every hit is tried with a simpler task, see tests/streams/kafka/test_clock.py.
    for hit in range(1, hits + 1, math.ceil(hits / 12)):
        broker = filled()
        crash_at(broker, step, hit)
        try:
            run(broker, late_ticks=late_ticks)
        except CrashError:
            broker.faults.clear()
            run(broker, late_ticks=late_ticks)
        assert [*outcome(broker)] == expected, f"{step} {hit}"


@pytest.mark.parametrize("step", ["begin", "produce", "snapshot", "before commit"])
def test_aborts_neither_lose_nor_double_a_bar(step, monkeypatch):
    monkeypatch.setattr("streams.kafka.loop.time", SimpleNamespace(sleep=lambda _seconds: None))
    broker = filled()

    def abort_sometimes(hit: int) -> None:
        if hit % 3 == 1 and hit < 40:
            raise TransactionAbortedError("injected")

    broker.faults[step] = abort_sometimes
    run(broker)
    assert broker.reached["abort"]
    assert outcome(broker) == undisturbed()[:2]


def test_a_restart_repeats_nothing_that_the_clock_closed():
    broker = filled()
    run(broker)
    before = bars(broker)
    run(broker)
    assert bars(broker) == before


@pytest.mark.parametrize("restarts", [True, False])
def test_ticks_that_wait_in_the_log_are_no_silence(restarts):
    """A process that stood still for longer than the idle timeout, or was started again after."""
    broker, now = Broker(), T0
    task = partial(
        new_task,
        rules=BarRules.of(INTERVALS, allowed_lateness_ns=0),
        idle_timeout_ns=10 * SECOND,
    )
    rig = Rig(broker, by_clock=True, new_task=task, wall_clock=lambda: now)
    rig.assign(0)

    def feed(symbol: str, second: int) -> None:
        value = tick(symbol, T0 + second * SECOND, 1.0)
        broker.append(SOURCE, 0, value, timestamp_ms=T0 // 1_000_000)

    for second in range(40):
        feed("A" if second < 2 else "B", second)
        rig.steps(20)
        now += SECOND
    # Stored with it is since when the symbol is silent.
    assert [bar.interval for bar in bars(broker) if bar.symbol == "A"] == ["1s", "1s"]
    for symbol in ("B", "A"):
        for second in range(40, 59):
            feed(symbol, second)
    now += 120 * SECOND
    if restarts:
        rig.restart()
        rig.assign(0)
    for _ in range(60):
        rig.steps(10)
        now += SECOND
    minutes = [bar for bar in bars(broker) if bar.interval == "1m"]
    assert sorted((b.symbol, b.revision, b.trades) for b in minutes) == [("A", 0, 21), ("B", 0, 57)]
