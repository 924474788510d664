"""Partitions side by side from a consumer in memory: everything once, in order, seldom paused."""

from collections import deque

import pytest
from confluent_kafka import TopicPartition

from streams.kafka.replay.reader import LogReader

TOPIC = "source"


class Message:
    """A record of a size."""

    def __init__(self, partition: int, offset: int, size: int) -> None:
        self._place, self._size = (partition, offset), size

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def error(self) -> None:
        return None

    def __len__(self) -> int:
        return self._size


class Consumer:
    """Delivers the partitions in turn, as many messages as asked for, and drops what is paused."""

    def __init__(self, partitions: int, count: int, size: int) -> None:
        self._waiting = {
            p: deque(Message(p, offset, size) for offset in range(count)) for p in range(partitions)
        }
        self._stopped: set[int] = set()
        self.pauses: list[int] = []
        self.resumed: list[int] = []
        self.asked: list[int] = []

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert all(place.offset == 0 for place in partitions)

    def consume(self, count: int, _timeout: float) -> list[Message]:
        found: list[Message] = []
        while len(found) < count:
            open_ones = [p for p, q in self._waiting.items() if q and p not in self._stopped]
            if not open_ones:
                break
            for p in open_ones[: count - len(found)]:
                found.append(self._waiting[p].popleft())
        return found

    def pause(self, places: list[TopicPartition]) -> None:
        self._stopped |= {place.partition for place in places}
        self.pauses += [p.partition for p in places if self._waiting[p.partition]]

    def resume(self, places: list[TopicPartition]) -> None:
        self._stopped -= {place.partition for place in places}
        self.resumed += [place.partition for place in places]

    def get_watermark_offsets(self, place: TopicPartition, _timeout: float) -> None:
        self.asked.append(place.partition)


def read(consumer: Consumer, partitions: int, count: int, wanted) -> dict[int, list[int]]:
    """Reads to the end and returns the offsets that came, by partition."""
    reader = LogReader(consumer, TOPIC, dict.fromkeys(range(partitions), (0, count)))
    got: dict[int, list[int]] = {p: [] for p in range(partitions)}
    while not all(reader.exhausted(p) for p in range(partitions)):
        for batch in reader.poll(wanted(got), 0.1):
            got[batch.partition] += [message.offset() for message in batch.messages]
    return got


@pytest.mark.parametrize("size", [100, 16_000, 1_000_000])
def test_nothing_is_paused_while_all_of_it_is_wanted(size):
    """Pausing throws away what was fetched, and what follows comes half a second later."""
    consumer = Consumer(4, 500, size)
    got = read(consumer, 4, 500, lambda _: range(4))
    assert got == {p: list(range(500)) for p in range(4)}
    assert consumer.pauses == []


def test_what_is_not_wanted_is_paused_in_time_and_its_broker_is_woken_afterwards():
    consumer = Consumer(2, 2000, 16_000)
    most_waiting = 0

    def behind_first(got: dict[int, list[int]]) -> list[int]:
        nonlocal most_waiting
        most_waiting = max(most_waiting, 2000 - len(consumer._waiting[1]) - len(got[1]))
        return [0] if len(got[0]) < 2000 else [1]

    got = read(consumer, 2, 2000, behind_first)
    assert got == {p: list(range(2000)) for p in range(2)}
    assert consumer.pauses == [1] * len(consumer.resumed)
    assert consumer.pauses
    assert most_waiting * 16_000 < 8 * 1024**2
    assert consumer.asked == consumer.resumed
