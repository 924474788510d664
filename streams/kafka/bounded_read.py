"""Reading a topic as it is now: from a position to the end that it had at the call."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.settings import Settings
from streams.kafka.batch import PartitionBatch, by_partition
from streams.kafka.clients import CALL_TIMEOUT_S, reader
from streams.kafka.ends import first_and_end
from streams.kafka.errors import DamagedLogError, KafkaUnavailableError, kafka_error

# Messages taken from librdkafka at once; its queue bounds their bytes.
_BATCH = 10_000
# How often the caller's deadline is looked at while nothing comes.
_POLL_S = 0.1
# A broker that sends nothing for this long, not even the news that there is nothing, is gone.
_SILENCE_S = 60.0
# Left to librdkafka, which tries again.
_PASSING = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})


class TopicReader:
    """Reads the committed messages of a topic; an instance serves one thread.

    One reading at a time: to read two places in turn, `fork`.

    Args:
        settings: Where Kafka is.
        topic: Topic to read.
        name: Of the reader, for the broker's logs.
        check_crcs: Whether every batch is compared with its checksum.
        buffer_bytes: Bound of what librdkafka reads ahead; None is its usual one, 64 MiB.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        name: str,
        *,
        check_crcs: bool = True,
        buffer_bytes: int | None = None,
    ) -> None:
        self._arguments = (settings, topic, name)
        self._check_crcs = check_crcs
        self._buffer_bytes = buffer_bytes
        self._topic = topic
        self._consumer: Consumer | None = None
        self._partitions = 0
        self._forks: list[TopicReader] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        for other in self._forks:
            other.close()
        self._forks.clear()

    def fork(self) -> "TopicReader":
        """Returns a reader of the same topic; closed with this one."""
        other = TopicReader(
            *self._arguments, check_crcs=self._check_crcs, buffer_bytes=self._buffer_bytes
        )
        self._forks.append(other)
        return other

    @property
    def partitions(self) -> int:
        """How many partitions the topic has.

        Raises:
            KafkaUnavailableError: The topic is missing, or no broker answered.
        """
        self._partitions = self._partitions or self.partition_count()
        if not self._partitions:
            raise KafkaUnavailableError(
                f"expected topic {self._topic}, was not there; create it with "
                "`mystocks topics apply`"
            )
        return self._partitions

    def partition_count(self) -> int:
        """Asks the broker how many partitions the topic has; 0 where there is no such topic.

        Raises:
            KafkaUnavailableError: No broker answered.
        """
        try:
            found = self.client.list_topics(self._topic, CALL_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise self._unavailable(kafka_error(error)) from error
        return 0 if found.error is not None else len(found.partitions)

    def span(self, partition: int, timeout_s: float = CALL_TIMEOUT_S) -> tuple[int, int]:
        """Returns the offset of the oldest record and that behind the newest committed one.

        Args:
            partition: Which partition.
            timeout_s: Longest wait.

        Raises:
            KafkaUnavailableError: The broker does not answer.
        """
        try:
            return first_and_end(self.client, TopicPartition(self._topic, partition), timeout_s)
        except KafkaException as error:
            raise self._unavailable(kafka_error(error)) from error

    def read(
        self, partition: int, start: int | None = None, end: int | None = None
    ) -> Iterator[Message]:
        """Yields the messages of a partition in offset order; see `batches`."""
        for batch in self.batches(partition, start, end):
            yield from batch.messages

    def batches(
        self,
        partition: int,
        start: int | None = None,
        end: int | None = None,
        remaining_s: Callable[[], float] | None = None,
    ) -> Iterator[PartitionBatch]:
        """Yields the records of a partition in offset order.

        Args:
            partition: Which partition.
            start: First offset; None is the oldest.
            end: Offset to stop before; None is the end of the log at this call.
            remaining_s: How long the caller still waits, in seconds; None is without limit.

        Raises:
            KafkaUnavailableError: The broker refuses, or not all was read in time.
            DamagedLogError: The checksum of a batch differs.
        """
        timeout_s = CALL_TIMEOUT_S if remaining_s is None else min(remaining_s(), CALL_TIMEOUT_S)
        low, high = self.span(partition, timeout_s)
        first = low if start is None else max(start, low)
        last = high if end is None else min(end, high)
        yield from self.ranges({partition: (first, last)}, remaining_s)

    def ranges(
        self,
        wanted: Mapping[int, tuple[int, int]],
        remaining_s: Callable[[], float] | None = None,
    ) -> Iterator[PartitionBatch]:
        """Yields the records of several partitions, of each in offset order.

        Args:
            wanted: First offset and the one to stop before, by partition; both lie in the log.
            remaining_s: As for `batches`.

        Raises:
            KafkaUnavailableError: As for `batches`.
            DamagedLogError: As for `batches`.
        """
        ends = {partition: end for partition, (first, end) in wanted.items() if first < end}
        if not ends:
            return
        client = self.client
        client.assign([TopicPartition(self._topic, p, wanted[p][0]) for p in ends])
        heard = time.monotonic()
        paused: list[TopicPartition] = []
        try:
            while ends:
                self._check_time(ends, heard, remaining_s)
                polled = client.consume(1, _POLL_S)
                if not polled:
                    continue
                heard = time.monotonic()
                polled += client.consume(_BATCH, 0)
                messages, finished = self._good(polled, ends)
                for batch in by_partition(messages):
                    left = _before(batch, ends.get(batch.partition, 0))
                    if len(left) < len(batch) or left.next_offset == ends[batch.partition]:
                        finished.add(batch.partition)
                    if len(left):
                        yield left
                finished &= ends.keys()
                for partition in finished:
                    del ends[partition]
                if finished and ends:
                    done = [TopicPartition(self._topic, p) for p in finished]
                    client.pause(done)
                    paused += done
        except DamagedLogError:
            # librdkafka takes the end of the damaged batch for the next one and asks for the
            # offset that it finds there. "Offset out of range" would come to the next reading.
            client.close()
            self._consumer = None
            raise
        finally:
            if self._consumer is not None:
                # A pause would outlast the assignment.
                if paused:
                    client.resume(paused)
                client.unassign()

    @property
    def client(self) -> Consumer:
        """The consumer underneath, outside any group."""
        if self._consumer is None:
            settings, _, name = self._arguments
            self._consumer = reader(
                settings, name, check_crcs=self._check_crcs, buffer_bytes=self._buffer_bytes
            )
        return self._consumer

    def _check_time(
        self, ends: Mapping[int, int], heard: float, remaining_s: Callable[[], float] | None
    ) -> None:
        if remaining_s is not None and remaining_s() <= 0:
            advice = "allow more time"
        elif time.monotonic() - heard > _SILENCE_S:
            advice = f"the broker was silent for {_SILENCE_S:g} s, check it"
        else:
            return
        places = ", ".join(f"partition {p} up to offset {end}" for p, end in list(ends.items())[:4])
        raise KafkaUnavailableError(
            f"expected to read {self._topic} in time, was not done with {places}; {advice}"
        )

    def _good(
        self, polled: list[Message], ends: Mapping[int, int]
    ) -> tuple[list[Message], set[int]]:
        """Returns messages without errors, and partitions that have no more of them."""
        events = [message for message in polled if message.error() is not None]
        if not events:
            return polled, set()
        finished: set[int] = set()
        for event in events:
            error = event.error()
            if error.code() == KafkaError._PARTITION_EOF:
                if event.offset() >= ends.get(event.partition(), 0):
                    finished.add(event.partition())
            elif error.code() == KafkaError._BAD_MSG:
                raise DamagedLogError(
                    f"expected an intact batch of records at offset {event.offset()} of "
                    f"{self._topic} {event.partition()}, was damaged ({error.str()}); restore the "
                    "partition from a replica or a backup"
                )
            elif error.code() not in _PASSING and not error.retriable():
                raise self._unavailable(error)
        return [message for message in polled if message.error() is None], finished

    def _unavailable(self, error: KafkaError) -> KafkaUnavailableError:
        return KafkaUnavailableError(
            f"expected to read {self._topic}, was refused ({error.str()}); check the broker and "
            "try again"
        )


def _before(batch: PartitionBatch, end: int) -> PartitionBatch:
    """Returns the records of a batch before an offset."""
    if batch.next_offset <= end:
        return batch
    count = bisect_left(batch.messages, end, key=Message.offset)
    return PartitionBatch(batch.partition, batch.messages[:count])
