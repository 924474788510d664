"""Pacing, merging and progress of a replay, on a clock and a log of the test's own."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.kafka.batch import PartitionBatch
from streams.kafka.errors import TransactionAbortedError
from streams.kafka.replay.clock import EventClock
from streams.kafka.replay.control import ReplayControl
from streams.kafka.replay.driver import ReplayDriver, ReplayTopics
from streams.kafka.replay.lane import Lane
from streams.kafka.replay.plan import PartitionPlan

SECOND = 10**9
TOPICS = ReplayTopics("ticks", "out", "hash", "cpu")


class Time:
    """A clock that goes on only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += max(seconds, 0.001)


class Control(ReplayControl):
    """Waiting takes no time of ours; at given moments something is done."""

    def __init__(self, time: Time, plans: Mapping[float, object] | None = None) -> None:
        super().__init__()
        self._time = time
        self._plans = dict(plans or {})

    def wait(self, timeout_s: float) -> None:
        self._time.wait(timeout_s)
        for moment in sorted(self._plans):
            if self._time() - 1000.0 >= moment:
                self._plans.pop(moment)(self)


class Log:
    """Messages in memory, handed out in small batches; each message is one tick's event time."""

    def __init__(self, time: Time, ticks: Mapping[int, Sequence[int]], size: int = 3) -> None:
        self._time = time
        self._size = size
        self._messages = {p: [_Message(p, o, t) for o, t in enumerate(ticks[p])] for p in ticks}
        self.most_waiting = 0

    def poll(self, wanted: Sequence[int], timeout_s: float) -> list[PartitionBatch]:
        batches = []
        for p in wanted:
            taken, self._messages[p] = (
                self._messages[p][: self._size],
                self._messages[p][self._size :],
            )
            if taken:
                batches.append(PartitionBatch(p, taken))
        if not batches:
            self._time.wait(timeout_s)
        return batches

    def exhausted(self, partition: int) -> bool:
        return not self._messages[partition]


class _Message:
    def __init__(self, partition: int, offset: int, time_s: int) -> None:
        self._place = partition, offset
        self.time_s = time_s

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]


class Rows:
    def __init__(self, times: Sequence[int], offsets: Sequence[int]) -> None:
        self.event_time = np.array(times, np.int64)
        self.offsets = np.array(offsets, np.int64)

    def encode(self, low: int, high: int) -> bytes:
        pairs = zip(self.event_time[low:high], self.offsets[low:high], strict=True)
        return b",".join(b"%d@%d" % (t // SECOND, o) for t, o in pairs)

    def keep(self) -> "Rows":
        return Rows(self.event_time.copy(), self.offsets.copy())


class Task:
    """Rows are the ticks themselves, of a range of time."""

    rows_per_record = 2

    def __init__(self, start_s: int = 0, end_s: int = 2**33) -> None:
        self.tick_times = self.tick_messages = np.empty(0, np.int64)
        self.replayed: list[int] = []
        self._start_s = start_s
        self._end_s = end_s

    def replay(self, batch: PartitionBatch, _first_row: int) -> int:
        self.replayed += [m.offset() for m in batch.messages]
        return len(batch)

    def finish(self) -> None: ...

    def select(self, batch: PartitionBatch) -> Rows | None:
        self.tick_times = np.array([m.time_s * SECOND for m in batch.messages], np.int64)
        self.tick_messages = np.arange(len(batch))
        kept = [m for m in batch.messages if self._start_s <= m.time_s < self._end_s]
        if not kept:
            return None
        return Rows([m.time_s * SECOND for m in kept], [m.offset() for m in kept])


class Output:
    """Notes records with the moment at which they became visible."""

    visible_when_settled = False
    rest_s = 0.0

    def __init__(self, time: Time, fail_at: int = -1) -> None:
        self.open = False
        self.seen: list[
            tuple[float, int, int, int, int]
        ] = []  # moment, partition, row, time, offset
        self.marks: dict[int, PartitionPlan] = {}
        self.positions: dict[int, int] = {}
        self._time = time
        self._pending: list[tuple[int, int, int, int]] = []
        self._fail_at = fail_at
        self.commits = 0

    def start(self) -> None: ...
    def begin(self) -> None:
        self.open = True

    def produce(self, topic, value, partition, *, key=None, headers=(), timestamp_ms=0) -> None:
        found = dict(headers)
        first = int(found["first_row"])
        pairs = [pair.split(b"@") for pair in value.split(b",")]
        assert int(found["rows"]) == len(pairs) <= Task.rows_per_record
        assert int(found["source_first_offset"]) == int(pairs[0][1])
        assert int(found["source_last_offset"]) == int(pairs[-1][1])
        assert timestamp_ms == max(int(t) for t, _ in pairs) * 1000
        self._pending += [(partition, first + i, int(t), int(o)) for i, (t, o) in enumerate(pairs)]

    def commit(self, offsets, group) -> None:
        self.commits += 1
        if self.commits == self._fail_at:
            raise TransactionAbortedError("told to")
        self.seen += [(self._time() - 1000.0, *row) for row in self._pending]
        self._pending.clear()
        self.open = False
        for place in offsets:
            self.positions[place.partition] = place.offset
            self.marks[place.partition] = PartitionPlan.decode(place.metadata)

    def close(self) -> None: ...


def drive(
    ticks: Mapping[int, Sequence[int]],
    speed: float | None,
    *,
    plans: Mapping[float, object] | None = None,
    marks: Mapping[int, PartitionPlan] | None = None,
    output: Output | None = None,
    time: Time | None = None,
    start_s: int = 0,
    end_s: int = 2**33,
    size: int = 3,
) -> tuple[str, Output, Log]:
    time = time or Time()
    output = output or Output(time)
    log = Log(time, ticks, size)
    lanes = {
        p: Lane(
            (marks or {}).get(p) or PartitionPlan(p, 0, 0, len(ticks[p]), f"{p}:0", "r", "id"),
            Task(start_s, end_s),
        )
        for p in ticks
    }
    driver = ReplayDriver(
        TOPICS, lanes, reader=log, output=output, group=None,
        clock=EventClock(speed, time), control=Control(time, plans), end_ns=end_s * SECOND,
        wall=time,
    )  # fmt: skip
    return driver.run(), output, log


def test_rows_of_all_partitions_come_in_the_order_of_event_time_at_their_time():
    ticks = {0: range(100, 200, 10), 1: range(105, 205, 10), 2: [], 3: [100, 101, 199]}
    outcome, output, _ = drive(ticks, speed=10.0)
    assert outcome == "finished"
    times = [row[3] for row in output.seen]
    assert times == sorted(times)
    assert len(times) == 23
    for moment, _, _, time, _ in output.seen:
        # Not before its time; after it at most until the next commit.
        assert (time - 100) / 10 <= moment + 1e-6 <= (time - 100) / 10 + 0.3


def test_the_clock_begins_with_the_first_row_not_with_the_range():
    _, output, _ = drive({0: [50_000, 50_010], 1: [50_005]}, speed=1.0, start_s=7)
    assert [round(row[0]) for row in output.seen] == [0, 5, 10]


def test_a_late_tick_goes_right_after_the_one_in_front_of_it():
    _, output, _ = drive({0: [100, 110, 104, 120]}, speed=1.0)
    assert [row[3] for row in output.seen] == [100, 110, 104, 120]
    assert [round(row[0]) for row in output.seen] == [0, 10, 10, 20]


@pytest.mark.parametrize("speed", [1.0, 50.0])
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("where", [0, 1, 20, 38])
def test_ticks_of_a_broken_clock_hold_up_nothing_and_go_with_their_neighbour(where, size, speed):
    day = 86_400
    ticks = list(range(100, 140))
    ticks[where:where] = [100 + day, 100 + 30 * day]
    other = range(100, 140)
    _, output, _ = drive({0: ticks, 1: other}, speed, size=size)
    assert [row[4] for row in output.seen if row[1] == 0] == list(range(42))
    due = np.delete(np.array([100, *ticks]), 0)
    due[where : where + 2] = 100 + max(where - 1, 0)
    for moment, partition, _, time, offset in output.seen:
        wanted = due[offset] if partition == 0 else time
        assert (wanted - 100) / speed <= moment + 1e-6 <= (wanted - 100) / speed + 0.3


@pytest.mark.parametrize("gap", [301, 86_400, 30 * 86_400])
@pytest.mark.parametrize("ticks", [1, 2, 40])
def test_a_night_is_as_long_as_it_was_however_few_ticks_follow(gap, ticks):
    before, after = list(range(100, 120)), [120 + gap + i for i in range(ticks)]
    # Some of the evening come after the first of the morning.
    late = [after[0], 118, 119, *after[1:]] if ticks > 8 else after
    _, output, _ = drive({0: before + late, 1: before + after}, speed=1000.0)
    for moment, _, _, time, _ in output.seen:
        if time not in (118, 119):
            assert (time - 100) / 1000 <= moment + 1e-6 <= (time - 100) / 1000 + 0.3


def test_a_batch_larger_than_what_may_wait_is_decided_by_what_follows(monkeypatch):
    monkeypatch.setattr("streams.kafka.replay.driver._MOST_PENDING", 10)
    ticks = [*range(100, 118), *range(10_000, 10_030)]
    outcome, output, _ = drive({0: ticks, 1: ticks}, 1000.0, size=20)
    assert outcome == "finished"
    assert [row[3] for row in output.seen if row[1] == 0] == ticks


def test_a_range_ends_at_its_end_and_not_with_the_log():
    time = Time()
    outcome, output, _ = drive({0: range(1000), 1: range(900)}, 1.0, time=time, end_s=10)
    assert outcome == "finished"
    assert len(output.seen) == 20
    assert time() - 1000.0 < 15
    assert output.positions == {0: 1000, 1: 900}


def test_while_paused_nothing_comes_and_the_rest_comes_later_by_as_much():
    def pause(control):
        control.pause()

    def resume(control):
        control.resume()

    ticks = {0: range(0, 20, 2), 1: range(1, 20, 2)}
    outcome, output, _ = drive(ticks, 1.0, plans={5.0: pause, 65.0: resume})
    assert outcome == "finished"
    assert sorted(row[3] for row in output.seen) == list(range(20))
    for moment, _, _, time, _ in output.seen:
        shift = 0 if time <= 5 else 60
        assert time + shift - 1e-6 <= moment <= time + shift + 0.5


@pytest.mark.parametrize("speed", [None, 50.0])
def test_cancelled_means_what_is_out_stays_and_nothing_comes_after(speed):
    time = Time()
    control_plans = {1.0: lambda control: control.cancel("enough")}
    outcome, output, _ = drive({0: range(1000)}, speed, plans=control_plans, time=time)
    if speed is None:
        assert (outcome, len(output.seen)) == ("finished", 1000)
    else:
        assert outcome == "cancelled"
        assert 0 < len(output.seen) < 1000


def test_ticks_before_the_range_only_advance_the_state():
    task_plan = PartitionPlan(0, 0, 4, 10, "0:0", "r", "id")
    time = Time()
    output = Output(time)
    task = Task()
    lane = Lane(task_plan, task)
    driver = ReplayDriver(
        TOPICS, {0: lane}, reader=Log(time, {0: range(10)}), output=output, group=None,
        clock=EventClock(None, time), control=Control(time), wall=time,
    )  # fmt: skip
    assert driver.run() == "finished"
    assert task.replayed == [0, 1, 2, 3]
    assert [row[2:] for row in output.seen] == [(n, n + 4, n + 4) for n in range(6)]
    assert output.marks[0].row == 6


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 40), max_size=25), min_size=1, max_size=3),
    st.sampled_from([None, 1.0, 7.0]),
    st.lists(st.integers(1, 4), max_size=6),
)
def test_however_often_it_is_aborted_every_row_comes_once(partitions, speed, failures):
    ticks = dict(enumerate(partitions))
    time = Time()
    marks: dict[int, PartitionPlan] = {}
    seen: list[tuple[int, int, int, int]] = []
    for fail_at in [*failures, -1]:
        output = Output(time, fail_at)
        try:
            outcome, _, _ = drive(ticks, speed, marks=marks, output=output, time=time)
        except TransactionAbortedError:
            outcome = ""
        seen += [row[1:] for row in output.seen]
        marks |= output.marks
        if outcome == "finished":
            break
    expected = {p: [(i, t, i) for i, t in enumerate(ts)] for p, ts in ticks.items()}
    for p in ticks:
        assert [row[1:] for row in seen if row[0] == p] == expected[p]


def test_a_partition_far_ahead_waits_in_bounded_memory():
    dense = {0: [0] + [1000] * 200_000, 1: [0, 2000]}
    time = Time()
    log = Log(time, dense, size=5_000)
    lanes = {
        p: Lane(PartitionPlan(p, 0, 0, len(dense[p]), f"{p}:0", "r", "id"), Task()) for p in dense
    }
    output = Output(time)
    driver = ReplayDriver(
        TOPICS, lanes, reader=log, output=output, group=None,
        clock=EventClock(1.0, time), control=Control(time), wall=time,
    )  # fmt: skip
    most = 0
    for _ in range(200):
        driver.step()
        most = max(most, lanes[0].pending)
    assert most <= 25_000
    assert len(output.seen) == 2
