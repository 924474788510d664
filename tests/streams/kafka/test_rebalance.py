"""Partitions come and go; no row is lost or doubled, and nothing of a stranger is committed."""

from tests.streams.kafka.fakes import SOURCE, Broker, Rig, fill
from tests.streams.kafka.test_loop_faults import EXPECTED


def rows(broker: Broker) -> list[list]:
    return [broker.rows(p) for p in (0, 1)]


def test_a_revoked_partition_is_committed_before_it_goes():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(6)
    rig.consumer.rebalance("revoke", [0, 1])
    rig.consumer.rebalance("assign", [0, 1])
    rig.settle()
    assert rows(broker) == EXPECTED


def test_a_partition_that_comes_back_untouched_keeps_its_state_without_a_restore():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(12)
    before = {run.partition: run.task for run in rig.assignment.live}
    rig.consumer.rebalance("revoke", [0, 1])
    rig.consumer.rebalance("assign", [0, 1])
    rig.settle()
    assert {run.partition: run.task for run in rig.assignment.live} == before
    assert rows(broker) == EXPECTED


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


def test_lost_partitions_are_not_committed():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(6)
    committed = dict(broker.committed)
    rig.consumer.rebalance("lost", [0, 1])
    rig.steps(1)
    assert broker.committed == committed
    rig.assign(0, 1)
    rig.settle()
    assert rows(broker) == EXPECTED


def test_messages_polled_around_a_rebalance_are_read_again_not_trusted():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(8)
    rig.consumer.deliver_stale(broker.log(SOURCE, 0)[20:25])
    rig.consumer.rebalance("revoke", [0])
    rig.consumer.rebalance("assign", [0])
    rig.settle()
    assert rows(broker) == EXPECTED


def test_two_processes_that_swap_partitions_double_nothing():
    broker = Broker()
    fill(broker)
    first, second = Rig(broker), Rig(broker)
    first.assign(0)
    second.assign(1)
    for turn in range(6):
        a, b = (0, 1) if turn % 2 == 0 else (1, 0)
        first.steps(5)
        second.steps(5)
        first.consumer.rebalance("revoke", [a])
        second.consumer.rebalance("revoke", [b])
        first.steps(1)
        second.steps(1)
        first.assign(b)
        second.assign(a)
    first.settle()
    second.settle()
    assert rows(broker) == EXPECTED


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
    for partition in range(64):
        broker.append(SOURCE, partition, b"A:1")
    rig = Rig(broker)
    rig.assign(*range(64))
    while not rig.assignment.settled:
        rig.steps(1)
    before = broker.reached["after commit"]
    rig.consumer.rebalance("revoke", list(range(64)))
    rig.steps(1)
    assert broker.reached["after commit"] <= before + 1
    rig.assign(*range(64))
    rig.settle()
    assert all(len(broker.rows(partition)) == 1 for partition in range(64))
