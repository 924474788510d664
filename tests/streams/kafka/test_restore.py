"""What a restart finds decides: chunks, commit, log; the policies when something is missing."""

import pytest

from streams.kafka.errors import PartitionCountError, StateNotRestorableError
from streams.kafka.snapshots import CommitMark
from tests.streams.kafka.fakes import OUTPUT, SOURCE, STATE, Broker, Rig, fill
from tests.streams.kafka.test_loop_faults import EXPECTED


def half_done() -> Broker:
    """A broker on which a process has committed about half and is gone."""
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(12)
    done = {p: offset for p, (offset, _) in broker.committed.items()}
    assert all(0 < done[p] < 30 for p in (0, 1))
    return broker


def go_on(broker: Broker, **rig_options: str) -> Rig:
    rig = Rig(broker, **rig_options)
    rig.assign(0, 1)
    rig.settle()
    return rig


def test_a_commit_says_where_the_replay_of_stored_chunks_starts():
    broker = half_done()
    for offset, metadata in broker.committed.values():
        mark = CommitMark.decode(metadata)
        assert mark is not None
        assert mark.resume <= offset
        assert mark.resume_row <= mark.row


@pytest.mark.parametrize("returns", [False, True])
def test_a_partition_is_fetched_with_the_poll_that_follows_its_going_live(returns):
    """A live partition that sleeps on costs the first rows after each rebalance a second."""
    rig = Rig(Broker())
    fill(rig.broker)
    rig.assign(0)
    if returns:
        rig.steps(6)
        rig.consumer.rebalance("revoke", [0])
        rig.steps(1)
        rig.assign(0)
        rig.steps(1)
    before = len(rig.broker.rows(0))
    assert not rig.assignment.live
    while not rig.assignment.live:
        rig.steps(1)
    assert len(rig.broker.rows(0)) > before


def test_a_drain_stores_all_state_although_nothing_is_open():
    broker = half_done()
    rig = go_on(broker)
    assert any(run.unsaved for run in rig.assignment.live)
    rig.loop.stop()
    rig.loop.run()
    for partition, (offset, metadata) in broker.committed.items():
        assert CommitMark.decode(metadata).resume == offset == len(broker.log(SOURCE, partition))
        broker.delete_before(SOURCE, partition, offset)
    go_on(broker)
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


def test_a_deleted_log_that_the_state_does_not_need_does_not_matter():
    broker = half_done()
    for partition, (_, metadata) in broker.committed.items():
        broker.delete_before(SOURCE, partition, CommitMark.decode(metadata).resume)
    go_on(broker)
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


def test_a_deleted_log_that_the_state_needs_stops_the_start_and_says_what_to_do():
    broker = half_done()
    behind = {
        partition: mark.resume + 1
        for partition, (offset, metadata) in broker.committed.items()
        if (mark := CommitMark.decode(metadata)).resume < offset
    }
    assert behind
    for partition, low in behind.items():
        broker.delete_before(SOURCE, partition, low)
    with pytest.raises(StateNotRestorableError, match="ON_UNRESTORABLE=rebuild"):
        go_on(broker)


def test_another_feature_set_is_never_continued_in_silence():
    with pytest.raises(StateNotRestorableError, match="expected state of feature set other"):
        go_on(half_done(), set_hash="other")


def test_warmup_goes_on_with_empty_state_and_a_new_origin():
    broker = half_done()
    offsets = {p: offset for p, (offset, _) in broker.committed.items()}
    go_on(broker, set_hash="other", policy="warmup")
    for partition in (0, 1):
        numbers = [number for number, _ in broker.rows(partition)]
        assert numbers == list(range(len(EXPECTED[partition])))
        origin = dict(broker.log(OUTPUT, partition)[-1].headers())["origin"].decode()
        assert origin == f"{partition}:{offsets[partition]}"


def test_rebuild_recomputes_from_the_log_without_output():
    broker = half_done()
    go_on(broker, set_hash="other", policy="rebuild")
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


def test_a_lost_state_topic_is_noticed():
    broker = half_done()
    for partition in (0, 1):
        broker.logs[STATE, partition] = []
    with pytest.raises(StateNotRestorableError, match="deleted or truncated"):
        go_on(broker)


def test_a_damaged_chunk_is_noticed():
    broker = half_done()
    log = broker.log(STATE, 0)
    value = bytearray(log[-1].value())
    value[-9] ^= 1
    log[-1].set_value(bytes(value))
    with pytest.raises(StateNotRestorableError, match="checksum"):
        go_on(broker)


def test_another_partition_count_stops_the_start():
    broker = half_done()
    broker.partitions = 4
    with pytest.raises(PartitionCountError, match="2 partitions"):
        go_on(broker)


def test_offsets_committed_by_another_tool_are_not_taken_for_ours():
    broker = half_done()
    broker.committed[0] = (broker.committed[0][0], "")
    with pytest.raises(StateNotRestorableError, match="another program"):
        go_on(broker)


def test_a_group_that_has_forgotten_its_offsets_does_not_start_over_in_silence():
    broker = half_done()
    broker.committed.clear()
    with pytest.raises(StateNotRestorableError, match="expected a committed offset, as"):
        go_on(broker)


def test_rebuild_goes_on_after_the_last_row_when_the_offsets_are_gone():
    broker = half_done()
    broker.committed.clear()
    go_on(broker, policy="rebuild")
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


def test_at_least_once_starts_over_without_offsets_and_the_row_numbers_go_on():
    broker = half_done()
    before = {p: len(broker.rows(p)) for p in (0, 1)}
    broker.committed.clear()
    go_on(broker, rows_before_commits=True)
    for partition in (0, 1):
        numbers = [number for number, _ in broker.rows(partition)]
        assert numbers == list(range(before[partition] + len(EXPECTED[partition])))


def test_a_topic_that_was_created_again_is_noticed():
    broker = half_done()
    broker.logs[SOURCE, 0] = broker.logs[SOURCE, 0][:2]
    with pytest.raises(StateNotRestorableError, match="created again"):
        go_on(broker)
