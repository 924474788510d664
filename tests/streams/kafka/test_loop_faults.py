"""Every row exactly once, whatever happens at whichever step of the loop."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from streams.kafka.errors import FencedError, KafkaUnavailableError, TransactionAbortedError
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


# Before it is decided nothing is committed; afterwards all is, and only the answer is missing.
@pytest.mark.parametrize("step", ["commit", "after commit"])
@pytest.mark.parametrize("interval", INTERVALS)
def test_a_commit_without_an_answer_is_repeated_until_there_is_one(step, interval):
    broker = Broker()
    fill(broker)
    broker.faults[step] = no_answer_every_third_time
    rig = Rig(broker, commit_interval_s=interval)
    rig.assign(0, 1)
    rig.settle()
    assert broker.reached["commit"] > broker.reached["before commit"] > 2
    assert not broker.reached["abort"]
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED
    assert rig.table.rows == EXPECTED_TABLE


@pytest.mark.parametrize("step", ["commit", "after commit"])
@pytest.mark.parametrize("interval", INTERVALS)
def test_a_process_that_never_hears_of_its_commit_leaves_and_the_next_finds_out(
    step, interval, monkeypatch
):
    monkeypatch.setattr("streams.kafka.output.DEADLINE_S", 0.0)
    broker = Broker()
    fill(broker)
    broker.faults[step] = no_answer
    rig = Rig(broker, commit_interval_s=interval)
    rig.assign(0, 1)
    with pytest.raises(KafkaUnavailableError, match="commit_transaction"):
        rig.settle()
    assert bool(broker.committed) == (step == "after commit")
    broker.faults.clear()
    rig.restart()
    rig.assign(0, 1)
    rig.settle()
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED
    assert rig.table.rows == EXPECTED_TABLE


def test_offsets_without_an_answer_are_taken_back_and_sent_again():
    broker = Broker()
    fill(broker)
    broker.faults["offsets sent"] = no_answer_every_third_time
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.settle()
    assert broker.reached["abort"] > 2
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


@pytest.mark.parametrize("moment", range(2, 18))
def test_a_zombie_is_fenced_and_what_it_left_open_never_comes_to_light(moment):
    broker = Broker()
    fill(broker)
    zombie = Rig(broker, commit_interval_s=0.2)
    zombie.assign(0, 1)
    zombie.steps(moment)
    successor = Rig(broker, commit_interval_s=0.2, slot=zombie.slot)
    successor.assign(0, 1)
    successor.settle()
    with pytest.raises(FencedError):
        zombie.settle()
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


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


def no_answer(_hit: int) -> None:
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "injected", retriable=True))


def no_answer_every_third_time(hit: int) -> None:
    if hit % 3 == 1:
        no_answer(hit)


def crash_at(broker: Broker, step: str, hit: int) -> None:
    def crash(reached: int) -> None:
        if reached == hit:
            raise CrashError(f"{step} {hit}")

    broker.faults[step] = crash
