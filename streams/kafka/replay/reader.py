"""Several partitions of a topic side by side, each between two offsets, in bounded memory."""

from collections import deque
from collections.abc import Collection, Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from streams.kafka.batch import PartitionBatch
from streams.kafka.clients import resume_at_once
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.tail import records_of

# What is computed together should stay in a core's cache.
_BATCH_BYTES = 1024**2
_BATCH_MESSAGES = 4000
# Read at a time, by the size of the messages read before.
_FETCH_BYTES = 2 * 1024**2
_FIRST_MESSAGES = 8
# Read but not wanted yet; a partition with more is not fetched until most of it is used up. Pausing
# throws away what the client has fetched, so it must be rare.
_STASH_BYTES = 4 * 1024**2
_RESUME_BYTES = _STASH_BYTES // 4


class _Stash:
    """Messages of a partition that were read and not handed out."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.size = 0

    def add(self, message: Message) -> None:
        self.messages.append(message)
        self.size += len(message)

    def take(self) -> list[Message]:
        taken: list[Message] = []
        size = 0
        while self.messages and size < _BATCH_BYTES and len(taken) < _BATCH_MESSAGES:
            taken.append(self.messages.popleft())
            size += len(taken[-1])
        self.size -= size
        return taken


class LogReader:
    """Reads [start, end) of some partitions.

    Args:
        consumer: Outside a group, reports ends of partitions (`streams.kafka.clients.reader`);
            its assignment is replaced.
        topic: The topic.
        spans: First offset and end by partition.
    """

    def __init__(
        self, consumer: Consumer, topic: str, spans: Mapping[int, tuple[int, int]]
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._ends = {p: end for p, (start, end) in spans.items() if start < end}
        self._positions = {p: spans[p][0] for p in self._ends}
        self._stashes = {p: _Stash() for p in self._ends}
        self._paused: set[int] = set()
        self._at_a_time = _FIRST_MESSAGES
        if self._ends:
            consumer.assign([TopicPartition(topic, p, at) for p, at in self._positions.items()])

    def exhausted(self, partition: int) -> bool:
        """Whether everything of a partition was handed out."""
        if partition not in self._ends:
            return True
        return self._read_all(partition) and not self._stashes[partition].messages

    def poll(self, wanted: Collection[int], timeout_s: float) -> list[PartitionBatch]:
        """Returns the next messages of some of the wanted partitions.

        Args:
            wanted: Partitions of which messages are returned; of others some are read ahead.
            timeout_s: How long to wait for the first one.

        Raises:
            RecordsLostError: What was to be read was deleted meanwhile.
            KafkaUnavailableError: The broker refuses the read.
        """
        waiting = [p for p in wanted if p in self._ends]
        if not any(self._stashes[p].messages for p in waiting):
            self._fetch(timeout_s if waiting else 0.0)
        batches = []
        for partition in waiting:
            messages = self._stashes[partition].take()
            if messages:
                batches.append(PartitionBatch(partition, messages))
        self._resume()
        return batches

    def close(self) -> None:
        """Stops reading; the consumer stays open."""
        self._consumer.unassign()

    def _read_all(self, partition: int) -> bool:
        return self._positions[partition] >= self._ends[partition]

    def _fetch(self, timeout_s: float) -> None:
        if all(self._read_all(p) for p in self._ends):
            return
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(self._at_a_time, 0.0)
            mean = max(1, sum(map(len, messages)) // len(messages))
            self._at_a_time = min(max(1, _FETCH_BYTES // mean), _BATCH_MESSAGES)
        before = {p for p in self._ends if not self._read_all(p)}
        try:
            records = records_of(messages, self._topic, self._positions, set())
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected to read {self._topic}, was refused ({kafka_error(error).str()}); "
                "check the broker"
            ) from error
        for message in records:
            partition = message.partition()
            if message.offset() < self._ends[partition]:
                self._stashes[partition].add(message)
        done = {p for p in before if self._read_all(p)}
        full = {p for p in before if self._stashes[p].size > _STASH_BYTES}
        stopped = (done | full) - self._paused
        if stopped:
            # A partition that is read to its end would otherwise be followed as it grows.
            self._consumer.pause([TopicPartition(self._topic, p) for p in stopped])
            self._paused |= stopped

    def _resume(self) -> None:
        again = {
            p
            for p in self._paused
            if not self._read_all(p) and self._stashes[p].size < _RESUME_BYTES
        }
        if again:
            resume_at_once(self._consumer, [TopicPartition(self._topic, p) for p in again])
            self._paused -= again
