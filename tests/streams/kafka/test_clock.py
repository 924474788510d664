"""What tasks do by the clock is written exactly once, although no replay of the log repeats it.

Peers lose it (bytewax #138: timers are not in the recovery state).
"""

from types import SimpleNamespace

import pytest

from streams.kafka.errors import TransactionAbortedError
from streams.kafka.snapshots import CommitMark
from tests.streams.kafka.fakes import CLOCK, LATE, SOURCE, Broker, CrashError, Rig, fill
from tests.streams.kafka.test_loop_faults import EXPECTED, STEPS, crash_at


def finish(rig: Rig) -> None:
    """Goes on until the log is processed and the clock has nothing left to say."""
    rig.settle()
    rig.steps(30)


def run(broker: Broker) -> Rig:
    rig = Rig(broker, by_clock=True)
    rig.assign(0, 1)
    finish(rig)
    return rig


def assert_complete(broker: Broker) -> None:
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED
    for partition in (0, 1):
        numbers: dict[str, list[int]] = {}
        sums: dict[str, float] = {}
        for row in broker.announcements(partition):
            numbers.setdefault(row["symbol"], []).append(row["number"])
            sums[row["symbol"]] = row["sum"]
        assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), numbers
        assert sums == {row["symbol"]: row["sum"] for _, row in EXPECTED[partition]}


def filled() -> Broker:
    """A broker on which messages arrive while a loop runs, as they do live."""
    broker = Broker()
    fill(broker)
    broker.arriving = 1
    return broker


def test_the_clock_speaks_between_batches_and_after_the_last_one():
    broker = filled()
    run(broker)
    assert_complete(broker)
    assert broker.reached["clock"] > 4


def test_the_clock_is_silent_while_messages_wait_in_the_log():
    broker = filled()
    broker.arriving = None
    run(broker)
    assert_complete(broker)
    numbers = [row["number"] for p in (0, 1) for row in broker.announcements(p)]
    assert set(numbers) == {1}


def test_messages_that_waited_for_the_process_are_processed_before_the_clock_speaks():
    broker = Broker()
    fill(broker, 20)
    run(broker)
    fill(broker, 40)
    run(broker)
    rows = [row for p in (0, 1) for row in broker.announcements(p)]
    symbols = {row["symbol"] for row in rows}
    assert {max(r["number"] for r in rows if r["symbol"] == s) for s in symbols} == {2}


def test_the_clock_speaks_where_the_log_ends_with_offsets_without_a_record():
    broker = Broker()
    fill(broker)
    for partition in (0, 1):
        broker.append(SOURCE, partition, b"")
        broker.holes.add((SOURCE, partition, len(broker.log(SOURCE, partition)) - 1))
    rig = Rig(broker, by_clock=True)
    rig.assign(0, 1)
    rig.steps(200)
    assert_complete(broker)


def test_while_the_broker_is_away_and_just_after_the_clock_is_silent():
    broker, now = filled(), 0
    rig = Rig(broker, by_clock=True, wall_clock=lambda: now)
    rig.assign(0, 1)
    rig.steps(20)
    broker.away = True
    rig.steps(50)
    before = broker.reached["clock"]
    now += 60 * 10**9
    rig.steps(50)
    broker.away = False
    rig.steps(100)
    assert broker.reached["clock"] == before
    now += 11 * 10**9
    finish(rig)
    assert broker.reached["clock"] > before
    assert_complete(broker)


def test_a_commit_by_the_clock_moves_no_offset():
    broker = filled()
    rig = Rig(broker, by_clock=True, seconds_a_look=0.0005)
    rig.assign(0, 1)
    rig.settle()
    before = {p: offset for p, (offset, _) in broker.committed.items()}
    marks = {p: CommitMark.decode(text).clock_ns for p, (_, text) in broker.committed.items()}
    rig.steps(300)
    assert {p: offset for p, (offset, _) in broker.committed.items()} == before
    after = {p: CommitMark.decode(text).clock_ns for p, (_, text) in broker.committed.items()}
    assert all(after[p] > marks[p] for p in (0, 1))


def test_what_the_clock_wrote_names_rows_but_neither_identities_nor_offsets():
    broker = filled()
    run(broker)
    headers = dict(broker.log(CLOCK, 0)[0].headers())
    assert headers.keys() == {"rows", "set_hash", "origin", "backend"}


@pytest.mark.parametrize("step", [*STEPS, "clock"])
def test_a_crash_at_any_hit_of_any_step_neither_forgets_nor_repeats(step):
    broker = filled()
    run(broker)
    hits = broker.reached[step]
    assert hits
    for hit in range(1, hits + 1):
        broker = filled()
        crash_at(broker, step, hit)
        rig = Rig(broker, by_clock=True)
        rig.assign(0, 1)
        with pytest.raises(CrashError):
            finish(rig)
        broker.faults.clear()
        run(broker)
        assert_complete(broker)


@pytest.mark.parametrize("step", ["begin", "clock", "produce", "snapshot", "before commit"])
def test_an_abort_takes_back_what_the_clock_did(step, monkeypatch):
    monkeypatch.setattr("streams.kafka.loop.time", SimpleNamespace(sleep=lambda _seconds: None))
    broker = filled()

    def abort_sometimes(hit: int) -> None:
        if hit % 3 == 1 and hit < 40:
            raise TransactionAbortedError("injected")

    broker.faults[step] = abort_sometimes
    run(broker)
    assert broker.reached["abort"]
    assert_complete(broker)


def test_a_restart_does_not_repeat_what_the_clock_wrote_after_the_last_message():
    broker = filled()
    run(broker)
    before = [broker.announcements(p) for p in (0, 1)]
    run(broker)
    assert [broker.announcements(p) for p in (0, 1)] == before


def test_a_partition_on_which_only_the_clock_of_another_has_acted_is_restored():
    broker = filled()
    first = Rig(broker, by_clock=True, seconds_a_look=0.0005)
    first.assign(0, 1)
    first.settle()
    before = {p: offset for p, (offset, _) in broker.committed.items()}
    release = first.consumer._callbacks["on_revoke"]

    def release_to_another(*arguments) -> None:
        release(*arguments)
        second = run(broker)
        second.consumer.rebalance("revoke", [0, 1])
        second.steps(1)

    first.consumer._callbacks["on_revoke"] = release_to_another
    first.consumer.rebalance("revoke", [0, 1])
    first.assign(0, 1)
    first.steps(300)
    assert {p: offset for p, (offset, _) in broker.committed.items()} == before
    assert_complete(broker)


def test_a_late_tick_goes_unchanged_to_the_late_topic_in_the_same_transaction():
    broker = Broker()
    broker.append(SOURCE, 0, b"A:1")
    broker.append(SOURCE, 0, b"late:2", key=b"A")
    rig = Rig(broker)
    rig.assign(0, 1)
    crash_at(broker, "before commit", 1)
    with pytest.raises(CrashError):
        rig.settle()
    assert not broker.log(LATE, 0)
    broker.faults.clear()
    rig.restart()
    rig.assign(0, 1)
    rig.settle()
    [letter] = broker.log(LATE, 0)
    headers = dict(letter.headers())
    assert (letter.value(), letter.key()) == (b"late:2", b"A")
    assert (headers["reason"], headers["offset"], headers["rows"]) == (
        b"late: by order",
        b"1",
        b"0",
    )
    assert headers["group"] == b"g"
