"""Partitions come and go; no row is lost or doubled, and nothing of a stranger is committed."""

import gc
import weakref
from itertools import count
from types import SimpleNamespace

import pytest

from streams.kafka.errors import (
    KafkaUnavailableError,
    PartitionCountError,
    TransactionAbortedError,
)
from tests.streams.kafka.fakes import SOURCE, Broker, Rig, fill
from tests.streams.kafka.test_loop_faults import (
    EXPECTED,
    no_answer,
    no_answer_every_third_time,
    undisturbed,
)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    # In this module alone: threads of others would spin.
    monkeypatch.setattr("streams.kafka.loop.time", SimpleNamespace(sleep=lambda _seconds: None))


def in_a_backlog() -> Rig:
    """A process that keeps a transaction open over several polls."""
    broker = Broker()
    fill(broker)
    rig = Rig(broker, commit_interval_s=0.2)
    rig.assign(0, 1)
    return rig


def moments() -> list[int]:
    """Returns after how many steps a transaction is open."""
    rig, found = in_a_backlog(), []
    for step in range(1, 30):
        rig.steps(1)
        if rig.output.open:
            found.append(step)
    return found


MOMENTS = moments()


def in_a_transaction(moment: int) -> Rig:
    """A process whose transaction is open, with work of both partitions in it."""
    rig = in_a_backlog()
    rig.steps(moment)
    assert rig.output.open
    return rig


def refuse(_hit: int) -> None:
    raise TransactionAbortedError("injected")


def rows(broker: Broker) -> list[list]:
    return [broker.rows(p) for p in (0, 1)]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_revoked_partition_is_committed_before_it_goes(moment):
    rig = in_a_transaction(moment)
    processed = {run.partition: run.next.offset for run in rig.assignment.live}
    rig.consumer.rebalance("revoke", [0, 1])
    rig.steps(1)
    assert {p: offset for p, (offset, _) in rig.broker.committed.items()} == processed
    assert not rig.output.open
    rig.assign(0, 1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("gone", [[0], [1], [0, 1]])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_release_whose_commit_is_refused_takes_the_batch_back(moment, gone):
    rig = in_a_transaction(moment)
    committed = dict(rig.broker.committed)
    rig.broker.faults["offsets sent"] = refuse
    rig.consumer.rebalance("revoke", gone)
    rig.steps(1)
    assert rig.broker.committed == committed
    rig.broker.faults.clear()
    other = Rig(rig.broker)
    other.assign(*gone)
    other.settle()
    other.consumer.rebalance("revoke", gone)
    other.steps(1)
    rig.assign(*gone)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


# A stop-the-world rebalance goes on over several polls while nothing is assigned.
@pytest.mark.parametrize("polls_between", [0, 1, 5])
def test_a_partition_that_comes_back_untouched_keeps_its_state_without_a_restore(polls_between):
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(12)
    before = {run.partition: run.task for run in rig.assignment.live}
    rig.consumer.rebalance("revoke", [0, 1])
    rig.steps(polls_between)
    rig.consumer.rebalance("assign", [0, 1])
    rig.settle()
    assert {run.partition: run.task for run in rig.assignment.live} == before
    assert rows(broker) == EXPECTED


def test_the_state_of_a_partition_that_does_not_come_back_is_not_kept():
    rig = in_a_backlog()
    rig.steps(12)
    state = weakref.ref(rig.assignment.runs[0].task)
    rig.consumer.rebalance("revoke", [0, 1])
    rig.steps(2)
    assert state() is not None
    rig.assign(1)
    rig.steps(3)
    gc.collect()
    assert state() is None


def test_a_partition_that_somebody_else_advanced_is_restored():
    broker = Broker()
    fill(broker)
    first = Rig(broker)
    first.assign(0, 1)
    first.steps(10)
    first.consumer.rebalance("revoke", [0, 1])
    first.steps(1)
    second = Rig(broker)
    second.assign(0, 1)
    second.steps(12)
    second.consumer.rebalance("revoke", [0, 1])
    second.steps(1)
    first.assign(0, 1)
    first.settle()
    assert rows(broker) == EXPECTED


@pytest.mark.parametrize("moment", MOMENTS)
def test_lost_partitions_are_not_committed(moment):
    rig = in_a_transaction(moment)
    committed, attempts = dict(rig.broker.committed), rig.broker.reached["before commit"]
    rig.consumer.rebalance("lost", [0, 1])
    rig.steps(1)
    assert rig.broker.committed == committed
    assert rig.broker.reached["before commit"] == attempts
    assert not rig.output.open
    other = Rig(rig.broker)
    other.assign(0, 1)
    other.settle()
    rig.assign(0, 1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_member_that_the_group_has_thrown_out_commits_nothing(moment):
    rig = in_a_transaction(moment)
    committed, aborts = dict(rig.broker.committed), rig.broker.reached["abort"]
    del rig.broker.members[rig.consumer]
    while rig.broker.reached["abort"] == aborts:
        rig.steps(1)
    assert rig.broker.committed == committed
    other = Rig(rig.broker)
    other.assign(0, 1)
    other.settle()
    rig.consumer.rebalance("lost", [0, 1])
    rig.assign(0, 1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("moment", MOMENTS)
def test_messages_polled_around_a_rebalance_are_read_again_not_trusted(moment):
    rig = in_a_transaction(moment)
    processed = rig.broker.reached["kernel"]
    rig.consumer.deliver_stale(rig.broker.log(SOURCE, 1)[20:21])
    rig.consumer.rebalance("revoke", [1])
    rig.steps(1)
    assert rig.broker.reached["kernel"] == processed
    rig.consumer.deliver_stale(rig.broker.log(SOURCE, 1)[20:21])
    rig.assign(1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


def test_messages_polled_around_a_rebalance_do_not_hide_what_was_taken_back():
    """A partition that stays goes back to its last commit when another one is lost."""

    def filled() -> Rig:
        broker = Broker()
        fill(broker)
        broker.holes = {(SOURCE, 0, 9), (SOURCE, 0, 17)}
        rig = Rig(broker, commit_interval_s=0.2, max_batch_bytes=12)
        rig.assign(0, 1)
        return rig

    rig = filled()
    rig.settle()
    expected = rows(rig.broker)
    moments = 0
    for moment in range(3, 60):
        rig = filled()
        rig.steps(moment)
        moments += rig.output.open
        rig.consumer.rebalance("lost", [1])
        rig.steps(1)
        rig.assign(1)
        rig.settle()
        assert rows(rig.broker) == expected, moment
    assert moments > 10


def test_two_processes_that_swap_partitions_double_nothing():
    broker = Broker()
    fill(broker, 160)
    first, second = (Rig(broker, commit_interval_s=9.0, max_batch_bytes=10) for _ in range(2))
    first.assign(0)
    second.assign(1)
    for turn in range(6):
        a, b = (0, 1) if turn % 2 == 0 else (1, 0)
        for rig in (first, second):
            while not rig.output.open:
                rig.steps(1)
            rig.steps(3)
            assert rig.output.open
        first.consumer.rebalance("revoke", [a])
        second.consumer.rebalance("revoke", [b])
        first.steps(1)
        second.steps(1)
        first.assign(b)
        second.assign(a)
    first.settle()
    second.settle()
    assert rows(broker) == undisturbed(160)[0]


def test_a_rebalance_at_any_moment_of_a_restore_starts_it_again_and_loses_nothing():
    rig = half_way()
    steps = 0
    while not rig.assignment.settled:
        rig.steps(1)
        steps += 1
    assert steps > 2
    for cut in range(steps):
        rig = half_way()
        rig.steps(cut)
        rig.consumer.rebalance("revoke", [0, 1])
        rig.consumer.rebalance("assign", [0, 1])
        rig.settle()
        assert rows(rig.broker) == EXPECTED, cut


def half_way() -> Rig:
    """A process that is about to restore what another has left about half done."""
    broker = Broker()
    fill(broker)
    first = Rig(broker)
    first.assign(0, 1)
    first.steps(12)
    second = Rig(broker)
    second.assign(0, 1)
    return second


def test_giving_back_64_partitions_is_one_commit_not_64():
    broker = Broker(partitions=64)
    rig = Rig(broker, commit_interval_s=1e9)
    rig.assign(*range(64))
    rig.settle()
    for partition in range(64):
        # The last one has more than fits into a poll: a poll that is not full ends in a commit.
        for price in range(20):
            broker.append(SOURCE, partition, b"A:%d" % price)
    while not all(run.advanced for run in rig.assignment.runs.values()):
        rig.steps(1)
    assert broker.reached["commit"] == 0
    rig.consumer.rebalance("revoke", list(range(64)))
    rig.steps(1)
    assert broker.reached["commit"] == 1
    assert broker.committed.keys() == set(range(64))
    rig.assign(*range(64))
    rig.settle()
    assert all(len(broker.rows(partition)) == 20 for partition in range(64))


# To this process or to another one.
@pytest.mark.parametrize("partitions", [[0, 1], [0, 1, 2], [0, 3], [3]])
def test_partitions_that_are_added_while_a_process_runs_stop_it_before_it_goes_on(partitions):
    rig = in_a_transaction(MOMENTS[-1])
    rig.consumer.rebalance("revoke", [0, 1])
    rig.steps(1)
    before = rows(rig.broker)
    rig.broker.partitions = 4
    rig.broker.append(SOURCE, 3, b"A:1")
    rig.assign(*partitions)
    with pytest.raises(PartitionCountError, match="2 partitions as when this process began, has 4"):
        rig.steps(10)
    assert rows(rig.broker) == before
    assert not rig.broker.rows(3)


def test_a_broker_that_does_not_yet_know_of_an_added_partition_is_not_believed():
    rig = in_a_backlog()
    rig.assign(2)
    with pytest.raises(PartitionCountError, match="has 3"):
        rig.steps(10)


def test_a_broker_that_does_not_say_how_many_partitions_there_are_is_asked_again():
    rig = in_a_backlog()
    rig.broker.faults["metadata"] = no_answer_every_third_time
    rig.settle()
    assert rig.broker.reached["metadata"] == 2
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("step", ["before commit", "offsets sent"])
def test_a_release_does_not_wait_for_the_end_of_what_it_takes_back(step):
    rig = in_a_transaction(MOMENTS[-1])
    rig.broker.faults[step] = no_answer
    aborts = []
    release = rig.consumer._callbacks["on_revoke"]

    def on_revoke(*arguments) -> None:
        release(*arguments)
        aborts.append(rig.broker.reached["abort"])

    rig.consumer._callbacks["on_revoke"] = on_revoke
    rig.consumer.rebalance("revoke", [0, 1])
    rig.steps(1)
    assert (aborts, rig.broker.reached["abort"]) == ([0], 1)
    rig.broker.faults.clear()
    rig.assign(0, 1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("step", ["commit", "after commit"])
def test_a_release_waits_five_seconds_for_a_commit_and_the_next_process_finds_out(
    step, monkeypatch
):
    rig = in_a_transaction(MOMENTS[-1])
    commits = rig.broker.reached["commit"]
    rig.broker.faults[step] = no_answer
    seconds = count()
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _seconds: None)
    monkeypatch.setattr("streams.kafka.output.time", clock)
    rig.consumer.rebalance("revoke", [0, 1])
    with pytest.raises(KafkaUnavailableError, match="commit_transaction, did not within"):
        rig.steps(1)
    assert next(seconds) <= 10
    assert commits < rig.broker.reached["commit"] < commits + 5
    rig.broker.faults.clear()
    rig.restart()
    rig.assign(0, 1)
    rig.settle()
    assert rows(rig.broker) == EXPECTED


@pytest.mark.parametrize("kind", ["revoke", "lost"])
def test_the_archive_is_told_of_what_was_taken_back(kind):
    rig = in_a_transaction(MOMENTS[-1])
    told = []
    rig.loop._archive = SimpleNamespace(
        produce=lambda _output, _runs: None,
        rollback=lambda: told.append([run.next.offset for run in rig.assignment.live]),
    )
    committed = [run.committed.offset for run in rig.assignment.live]
    rig.broker.faults["offsets sent"] = refuse
    rig.consumer.rebalance(kind, [0, 1])
    rig.steps(1)
    assert told[0] == committed
