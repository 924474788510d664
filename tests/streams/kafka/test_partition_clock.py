"""A partition's time goes on only as far as its log is processed."""

from streams.kafka.partition_clock import PartitionClock
from streams.kafka.partition_run import PartitionRun
from tests.streams.kafka.fakes import SumTask

SECOND = 10**9
T0 = 1_700_000_000 * SECOND


class World:
    """Logs of partitions 0 and 1, how far each is processed, and a wall clock."""

    def __init__(self) -> None:
        self.now = T0
        self.ends = {0: 0, 1: 0}
        self.silent: set[int] = set()
        self.slow = False
        self.runs = [PartitionRun(number, SumTask(number)) for number in (0, 1)]
        self.clock = PartitionClock(self, lambda: self.now)
        self._found: dict[int, int] = {}

    def ask(self, partitions) -> None:
        self._found = {p: self.ends[p] for p in partitions if p not in self.silent}

    def answer(self) -> dict[int, int] | None:
        return None if self.slow else self._found

    def processed(self, partition: int, offset: int) -> None:
        self.runs[partition].start_at(offset, 0, "")

    def look(self, seconds: float = 0.0) -> dict[int, float]:
        """Returns the time of each partition, in seconds since the beginning."""
        self.now = T0 + int(seconds * SECOND)
        return {run.partition: (at - T0) / SECOND for run, at in self.clock.look(self.runs)}


def test_an_idle_partition_is_told_when_its_end_was_asked_for():
    world = World()
    assert [world.look(t) for t in (0, 1, 2, 9)] == [{}, {0: 0, 1: 0}, {0: 1, 1: 1}, {0: 2, 1: 2}]


def test_a_partition_in_which_messages_wait_is_told_nothing():
    world = World()
    world.ends[0] = 100
    world.look(0)
    for second in range(1, 60):
        world.processed(0, second)
        assert 0 not in world.look(second)
    world.processed(0, 100)
    assert world.look(60) == {0: 59, 1: 59}


def test_a_partition_that_goes_on_growing_is_told_the_time_of_what_is_processed():
    world = World()
    times = []
    for second in range(60):
        world.ends[0] = 10 * second
        world.processed(0, max(0, 10 * (second - 5)))
        told = world.look(second)
        if second > 5 and 0 in told:
            assert second - 13 < told[0] <= second - 5
            times.append(told[0])
    # Each once: what is processed after it was not silent since then.
    assert len(times) > 5
    assert times == sorted(set(times))


def test_messages_that_wait_again_stop_the_time():
    world = World()
    world.look(0)
    assert world.look(1) == {0: 0, 1: 0}
    world.ends[1] = 5
    assert world.look(2)[1] == 1
    assert not any(1 in world.look(t) for t in (3, 30, 300))


def test_a_partition_that_comes_back_is_told_no_time_of_its_last_stay():
    world = World()
    world.look(0)
    world.look(1)
    both, world.runs = world.runs, world.runs[:1]
    world.look(2)
    world.runs = both
    assert 1 not in world.look(300)
    assert world.look(301)[1] == 300


def test_offsets_without_records_at_the_end_are_processed_when_the_consumer_has_seen_the_end():
    world = World()
    world.ends[0] = 7
    world.processed(0, 6)
    world.look(0)
    assert 0 not in world.look(1)
    world.runs[0].end_seen = 7
    assert 0 in world.look(2)


def test_what_an_abort_takes_back_is_not_processed():
    world = World()
    run = world.runs[0]
    world.ends[0] = 7
    run.next.offset = run.end_seen = 7
    world.look(0)
    assert 0 in world.look(1)
    run.rollback()
    assert 0 not in world.look(2)


def test_a_broker_that_does_not_say_the_end_stops_the_time_of_its_partitions():
    world = World()
    world.look(0)
    world.silent = {1}
    world.look(1)
    for second in range(2, 60):
        told = world.look(second)
        assert 1 not in told
        assert told[0] == second - 1


def test_producers_have_ten_seconds_to_come_back_with_their_broker():
    world = World()
    world.look(0)
    world.silent = {0, 1}
    for second in range(1, 61):
        world.look(second)
    world.silent = set()
    assert not any(world.look(60 + tenth / 10) for tenth in range(1, 100))
    assert world.look(71.5) == {}
    assert world.look(71.7) == {0: 71.5, 1: 71.5}


def test_it_does_not_wait_for_an_answer():
    world = World()
    world.look(0)
    world.slow = True
    assert [world.look(t) for t in (1, 2)] == [{}, {}]
    world.slow = False
    assert world.look(3) == {0: 0, 1: 0}
