"""A consumer of the broker in memory, with scripted rebalances, and the ends of its logs."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from tests.streams.kafka.fakes.broker import SOURCE, Broker

# At most this many messages of a partition in one poll, so that partitions take turns.
_FETCH = 2
# Polls during which librdkafka's thread for a broker sleeps on after a resume, unless it is woken.
_NAP = 5


class FakeConsumer:
    """Group consumer and plain reader in one; both report the end of a partition."""

    def __init__(self, broker: Broker, in_group: bool = True) -> None:
        self._broker = broker
        self._in_group = in_group
        self._callbacks: dict[str, Callable] = {}
        self._script: list[tuple[str, list[int]]] = []
        self._positions: dict[tuple[str, int], int] = {}
        self._paused: set[tuple[str, int]] = set()
        # Resumed partitions whose thread sleeps, with the polls that are left.
        self._asleep: dict[tuple[str, int], int] = {}
        self._stale: list[Message] = []
        self._at_end: set[tuple[str, int]] = set()
        self._turn = 0
        self._generation = -1
        self.closed = False

    def subscribe(self, topics: list[str], **callbacks: Callable) -> None:
        self._callbacks = callbacks

    def rebalance(self, kind: str, partitions: Sequence[int]) -> None:
        """Has the next poll run a callback: assign, revoke or lost."""
        self._script.append((kind, list(partitions)))

    def deliver_stale(self, messages: Sequence[Message]) -> None:
        """Has the next poll return these messages as well."""
        self._stale = list(messages)

    def lose_position(self, partition: int, offset: int) -> None:
        """Goes on elsewhere without a word."""
        self._positions[SOURCE, partition] = offset

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._positions = {(p.topic, p.partition): p.offset for p in partitions}
        self._at_end = set()

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        self._positions |= {(p.topic, p.partition): p.offset for p in partitions}

    def unassign(self) -> None:
        self._positions = {}

    def consume(self, num_messages: int, timeout: float) -> list[Message]:
        if self._in_group:
            self._broker.reach("consume")
            self._broker.polled()
        stale, self._stale = self._stale, []
        for kind, numbers in self._take_script():
            parts = [TopicPartition(SOURCE, number) for number in numbers]
            if kind == "assign":
                self._join()
            elif kind == "lost":
                self._broker.members.pop(self, None)
            self._callbacks[f"on_{kind}"](self, parts)
            if kind != "assign":
                for number in numbers:
                    self._positions.pop((SOURCE, number), None)
                # What stays assigned, stays in the next generation.
                self._join()
        messages: list[Message] = stale
        if self._broker.away:
            return messages
        places = list(self._positions.items())
        self._turn += 1
        for place, position in places[self._turn % 2 :] + places[: self._turn % 2]:
            if place in self._paused or self._sleeps(place):
                continue
            log = self._broker.log(*place)[: self._broker.end(*place)]
            if position < self._broker.low[place]:
                messages.append(_error(KafkaError._AUTO_OFFSET_RESET, place))
                continue
            room = max(num_messages - len(messages), 0)
            taken = log[position : position + min(room, _FETCH)]
            messages += [m for m in taken if (*place, m.offset()) not in self._broker.holes]
            end = self._positions[place] = position + len(taken)
            if taken:
                self._at_end.discard(place)
            if end >= len(log) and place not in self._at_end and len(messages) < num_messages:
                self._at_end.add(place)
                messages.append(_error(KafkaError._PARTITION_EOF, place, end))
        return messages

    def _join(self) -> None:
        self._broker.generation += 1
        self._generation = self._broker.members[self] = self._broker.generation

    def _take_script(self) -> list[tuple[str, list[int]]]:
        script, self._script = self._script, []
        return script

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        self._broker.reach("metadata")
        numbers = range(self._broker.partitions)
        found = SimpleNamespace(partitions=dict.fromkeys(numbers), error=None)
        return SimpleNamespace(topics={topic: found})

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = []
        for part in partitions:
            offset, metadata = self._broker.committed.get(part.partition, (-1001, ""))
            found.append(TopicPartition(part.topic, part.partition, offset, metadata=metadata))
        return found

    def offsets_for_times(
        self, partitions: list[TopicPartition], timeout: float
    ) -> list[TopicPartition]:
        assert all(part.offset == OFFSET_BEGINNING for part in partitions)
        low = self._broker.low
        return [TopicPartition(p.topic, p.partition, low[p.topic, p.partition]) for p in partitions]

    def consumer_group_metadata(self) -> tuple[object, int]:
        return self, self._generation

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        for part in offsets:
            self._broker.committed[part.partition] = (part.offset, part.metadata)

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._paused |= {(p.topic, p.partition) for p in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        places = {(p.topic, p.partition) for p in partitions}
        self._asleep |= dict.fromkeys(places & self._paused, _NAP)
        self._paused -= places

    def _sleeps(self, place: tuple[str, int]) -> bool:
        left = self._asleep.pop(place, 0)
        if left > 1:
            self._asleep[place] = left - 1
        return left > 0

    def seek(self, partition: TopicPartition) -> None:
        self._positions[partition.topic, partition.partition] = partition.offset
        self._at_end.discard((partition.topic, partition.partition))

    def get_watermark_offsets(
        self, partition: TopicPartition, timeout: float = 0, cached: bool = False
    ) -> tuple[int, int]:
        place = (partition.topic, partition.partition)
        if not cached:
            # A request wakes the thread that sends it.
            self._asleep.pop(place, None)
        return self._broker.low[place], self._broker.end(*place)

    def close(self) -> None:
        self.closed = True


def _error(code: int, place: tuple[str, int], offset: int = -1) -> Message:
    return Message(topic=place[0], partition=place[1], offset=offset, error=KafkaError(code))


class FakeLogEnds:
    """Knows the ends at the moment of the question, and says them at the next look."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._found: dict[int, int] = {}

    def ask(self, partitions: Sequence[int]) -> None:
        known = () if self._broker.away else partitions
        self._found = {number: self._broker.end(SOURCE, number) for number in known}

    def answer(self) -> dict[int, int] | None:
        return self._found
