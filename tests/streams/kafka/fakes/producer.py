"""A transactional producer in memory, for the real outputs to write to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.kafka.output import ExactlyOnceOutput
from streams.kafka.watchdog import Watchdog
from tests.streams.kafka.fakes.broker import Broker


@dataclass
class Transaction:
    """What a producer has sent since it began; it is on the broker and outlives the process."""

    records: list[tuple] = field(default_factory=list)
    offsets: list[TopicPartition] = field(default_factory=list)
    committed: bool = False


class FakeProducer:
    """Records become visible, and offsets count, at commit alone.

    A successor with the same transactional id ends what this one left open, and fences it.
    """

    def __init__(self, broker: Broker, transactional_id: str) -> None:
        self._broker = broker
        self._id = transactional_id
        self._transaction = Transaction()

    def init_transactions(self, _timeout: float) -> None:
        self._broker.reach("start")
        self._broker.producers[self._id] = self

    def begin_transaction(self) -> None:
        self._check()
        self._broker.reach("begin")
        self._transaction = Transaction()

    def produce(self, topic, value, key, partition, *, on_delivery, timestamp, headers) -> None:
        self._broker.reach("snapshot" if topic.endswith(".state") else "produce")
        self._transaction.records.append((topic, partition, value, key, tuple(headers or ())))

    def send_offsets_to_transaction(
        self, offsets: Sequence[TopicPartition], group: tuple[object, int], _timeout: float
    ) -> None:
        self._broker.reach("before commit")
        self._check()
        member, generation = group
        if self._broker.members.get(member) != generation:
            raise KafkaException(
                KafkaError(KafkaError.ILLEGAL_GENERATION, "stale", txn_requires_abort=True)
            )
        self._transaction.offsets += offsets
        self._broker.reach("offsets sent")

    def commit_transaction(self, _timeout: float) -> None:
        self._broker.reach("commit")
        self._check()
        # A call that is repeated since its answer got lost finds that all is done.
        if not self._transaction.committed:
            self._transaction.committed = True
            for record in self._transaction.records:
                self._broker.append(*record)
            for part in self._transaction.offsets:
                self._broker.committed[part.partition] = (part.offset, part.metadata)
        self._broker.reach("after commit")

    def abort_transaction(self, _timeout: float) -> None:
        self._check()
        if self._transaction.committed:
            raise KafkaException(KafkaError(KafkaError._STATE, "the commit has begun", fatal=True))

    def _check(self) -> None:
        if self._broker.producers[self._id] is not self:
            raise KafkaException(KafkaError(KafkaError.PRODUCER_FENCED, "fenced"))


class Unwatched(Watchdog):
    """Makes the calls of a producer that answers at once, without a thread."""

    def __call__(self, _what: str, call: Callable[[], object]) -> None:
        call()


class SteppedOutput(ExactlyOnceOutput):
    """The output of a process on a broker in memory."""

    def __init__(self, broker: Broker, transactional_id: str) -> None:
        super().__init__(FakeProducer(broker, transactional_id), watch=Unwatched())
        self._broker = broker

    def settle(self) -> None:
        self._broker.reach("settle")
        super().settle()

    def abort(self) -> None:
        self._broker.reach("abort")
        super().abort()
