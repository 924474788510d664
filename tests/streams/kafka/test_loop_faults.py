"""Every row exactly once, whatever happens at whichever step of the loop."""

import pytest

from streams.kafka.errors import FencedError, TransactionAbortedError
from tests.streams.kafka.fakes import DEAD, SOURCE, Broker, CrashError, Rig, fill

STEPS = (
    "consume",
    "kernel",
    "begin",
    "produce",
    "settle",
    "snapshot",
    "before commit",
    "offsets sent",
    "commit",
    "after commit",
    "state commit",
    "table",
    "table written",
)
# A commit after every batch, and transactions that stay open over several polls.
INTERVALS = [0.0, 0.2]


def undisturbed(messages: int = 60) -> tuple[list[list], dict]:
    broker = Broker()
    fill(broker, messages)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.settle()
    return [broker.rows(p) for p in (0, 1)], rig.table.rows


EXPECTED, EXPECTED_TABLE = undisturbed()


def test_the_reference_is_complete_and_numbered_without_a_gap():
    for rows in EXPECTED:
        assert [number for number, _ in rows] == list(range(len(rows)))
    assert sum(map(len, EXPECTED)) == sum(1 for i in range(60) if i % 17 != 5)


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_hit_of_any_step_changes_nothing(step, interval):
    broker = Broker()
    fill(broker)
    rig = Rig(broker, commit_interval_s=interval)
    rig.assign(0, 1)
    rig.settle()
    hits = broker.reached[step]
    assert hits
    for hit in range(1, hits + 1):
        broker = Broker()
        fill(broker)
        crash_at(broker, step, hit)
        rig = Rig(broker, commit_interval_s=interval)
        rig.assign(0, 1)
        with pytest.raises(CrashError):
            rig.settle()
        broker.faults.clear()
        rig.restart()
        rig.assign(0, 1)
        rig.settle()
        assert [broker.rows(p) for p in (0, 1)] == EXPECTED, f"{step} {hit}"
        assert rig.table.rows == EXPECTED_TABLE, f"{step} {hit}"


def test_a_crash_every_few_steps_still_makes_progress():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    for life in range(40):
        rig.restart() if life else None
        rig.assign(0, 1)
        crash_at(broker, STEPS[life % len(STEPS)], broker.reached[STEPS[life % len(STEPS)]] + 3)
        try:
            rig.settle()
            break
        except CrashError:
            broker.faults.clear()
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    "step", ["begin", "produce", "settle", "snapshot", "before commit", "offsets sent", "commit"]
)
def test_an_aborted_batch_leaves_state_and_offsets_untouched(step, interval):
    broker = Broker()
    fill(broker)

    def abort_sometimes(hit: int) -> None:
        if hit in {1, 4, 5, 9, 14, 20}:
            raise TransactionAbortedError("injected")

    broker.faults[step] = abort_sometimes
    rig = Rig(broker, commit_interval_s=interval)
    rig.assign(0, 1)
    rig.settle()
    assert broker.reached["abort"]
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED
    assert rig.table.rows == EXPECTED_TABLE


def test_a_fenced_process_stops_and_writes_nothing_more():
    broker = Broker()
    fill(broker)

    def fence(hit: int) -> None:
        raise FencedError("injected")

    broker.faults["before commit"] = fence
    rig = Rig(broker)
    rig.assign(0, 1)
    with pytest.raises(FencedError):
        rig.settle()
    assert broker.rows(0) == broker.rows(1) == []
    assert FencedError.exit_code == 75


def test_a_refused_message_goes_to_dead_letters_with_its_place_and_reason():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.settle()
    letters = broker.log(DEAD, 0) + broker.log(DEAD, 1)
    assert len(letters) == sum(1 for i in range(60) if i % 17 == 5)
    for letter in letters:
        headers = dict(letter.headers())
        assert letter.value() == b"garbage"
        assert headers["reason"] == b"expected symbol:price"
        original = broker.log(SOURCE, int(headers["partition"]))[int(headers["offset"])]
        assert original.value() == b"garbage"


def crash_at(broker: Broker, step: str, hit: int) -> None:
    def crash(reached: int) -> None:
        if reached == hit:
            raise CrashError(f"{step} {hit}")

    broker.faults[step] = crash
