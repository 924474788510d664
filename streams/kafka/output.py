"""Outputs: one object is one transaction's life, or its at-least-once counterpart."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from streams.kafka.errors import (
    FencedError,
    KafkaUnavailableError,
    OutputFailedError,
    TransactionAbortedError,
    is_fenced,
    kafka_error,
)
from streams.kafka.watchdog import Watchdog

# A call that the broker asks to repeat is repeated for at most this long.
DEADLINE_S = 60.0
# One attempt of a blocking call.
_ATTEMPT_S = 10.0
# By now the broker has ended the transaction by itself. A client that gets answers to other
# questions but none to this has lost its coordinator (librdkafka 2.16, when a broker was out of the
# cluster for a moment) and never sends the request; only a new one does.
_STUCK_S = 20.0
_METADATA_S = 2.0
# Longer than a coordinator that is well takes for offsets.
_OFFSETS_S = 4.0
# The broker needs about this long to write the end of a transaction into its partitions. One that
# begins meanwhile is refused, and librdkafka asks again only after 20 ms. At 5,000 ticks a second
# a commit took 17 ms without this rest, 8 ms with 6 ms of it, and as long with 10 ms.
_REST_S = 0.006
# The only attempt at the end of the process.
_CLOSE_S = 3.0

Headers = Sequence[tuple[str, bytes]]


class Output(Protocol):
    """Where the loop writes records, and how it makes them and their offsets permanent.

    Attributes:
        open: Whether records were begun and neither committed nor aborted.
        visible_when_settled: Whether readers see settled records before they are committed.
        rest_s: How long records should still be collected rather than begun with, in seconds.
    """

    open: bool
    visible_when_settled: bool

    @property
    def rest_s(self) -> float:
        """See above."""

    def start(self) -> None:
        """Prepares the producer; ends what a predecessor left open."""

    def begin(self) -> None:
        """Begins to collect records; does nothing if already begun."""

    def produce(
        self,
        topic: str,
        value: bytes | None,
        partition: int,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Queues a record; waits while the producer's queue is full."""

    def settle(self) -> None:
        """At least once: waits until the records so far are in the log. Else does nothing."""

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Makes records and consumed offsets permanent.

        Args:
            offsets: Next offset of each partition, with metadata.
            group: Consumer group metadata of the generation that consumed them.
        """

    def abort(self) -> None:
        """Takes the records back as far as that is possible."""

    def close(self) -> None:
        """Aborts what is open."""


class GroupOutput(Output, Protocol):
    """The output of a member of a group, which must give partitions back in time."""

    def within(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Gives all calls inside one deadline in common, instead of a minute for each.

        Raises:
            TransactionAbortedError: It has passed and nothing is decided yet.
            KafkaUnavailableError: It has passed in the middle of a commit.
        """


class _ProducerOutput:
    """Queueing that both guarantees share."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._failed: KafkaError | None = None
        self._deadline: float | None = None
        self.open = False

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Gives all calls inside one deadline in common."""
        self._deadline = time.monotonic() + seconds
        try:
            yield
        finally:
            self._deadline = None

    def _until(self) -> float:
        """Returns until when a call may go on, monotonic seconds."""
        return time.monotonic() + DEADLINE_S if self._deadline is None else self._deadline

    @property
    def _overslept(self) -> bool:
        """Whether the broker may have fenced the producer because a transaction took too long."""
        return False

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def produce(
        self,
        topic: str,
        value: bytes | None,
        partition: int,
        *,
        key: bytes | None = None,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> None:
        began, deadline = time.monotonic(), self._until()
        while True:
            try:
                self._producer.produce(
                    topic,
                    value,
                    key,
                    partition,
                    on_delivery=self._on_delivery,
                    timestamp=timestamp_ms,
                    headers=list(headers) or None,
                )
                return
            except BufferError:
                self._producer.poll(0.05)
                if time.monotonic() > deadline:
                    if self._deadline is not None:
                        raise TransactionAbortedError("no time is left to queue records") from None
                    raise KafkaUnavailableError(
                        f"expected the broker to take records of {topic}, took none within "
                        f"{deadline - began:.3g} s; check the broker"
                    ) from None
            except KafkaException as error:
                self._raise(error, f"produce to {topic}")

    def _raise(self, error: KafkaException, doing: str) -> None:
        cause = kafka_error(error)
        # A group member that was too slow and came back is another one under the same instance id,
        # and what was computed before is not its own. Were it another process, the producer would
        # be fenced too, or the next poll say so.
        own_return = cause.code() == KafkaError.FENCED_INSTANCE_ID
        if is_fenced(cause) and self._overslept:
            raise OutputFailedError(
                "expected a transaction to take less than transaction.timeout.ms, took longer, so "
                f"that the broker ended it ({doing}: {cause.str()}); the process or the machine "
                "was asleep; restart the role"
            ) from error
        if is_fenced(cause) and not own_return:
            raise FencedError(
                f"expected to be the only process of this slot, was replaced by another ({doing}: "
                f"{cause.str()}); give each process a slot of its own (setting SLOT of the role)"
            ) from error
        if cause.fatal():
            raise OutputFailedError(
                f"expected {doing} to succeed, failed for good ({cause.str()}); restart the role"
            ) from error
        raise TransactionAbortedError(f"{doing}: {cause.str()}") from error


class ExactlyOnceOutput(_ProducerOutput):
    """Records and offsets in one Kafka transaction.

    Args:
        producer: A transactional one.
        watch: Ends the process when a call never returns.
        timeout_s: After this the broker ends a transaction and fences its producer.
        clock: Seconds; goes on while the machine sleeps.
    """

    visible_when_settled = False

    def __init__(
        self,
        producer: Producer,
        watch: Watchdog | None = None,
        *,
        timeout_s: float = math.inf,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(producer)
        self._watch = watch or Watchdog()
        self._timeout_s = timeout_s
        self._wall_clock = clock
        self._began = math.inf
        self._rested = 0.0

    @property
    def _overslept(self) -> bool:
        return self.open and self._wall_clock() - self._began >= self._timeout_s

    @property
    def rest_s(self) -> float:
        """Seconds until the log has the end of the last transaction; 0 while one is open."""
        return 0.0 if self.open else max(0.0, self._rested - time.monotonic())

    def start(self) -> None:
        """Fences predecessors with the same transactional id and aborts what they left open."""
        self._repeat(self._producer.init_transactions, "init_transactions")

    def begin(self) -> None:
        """Begins a transaction unless one is open."""
        if not self.open:
            self._failed = None
            try:
                self._producer.begin_transaction()
            except KafkaException as error:
                self._raise(error, "begin_transaction")
            self.open = True
            self._began = self._wall_clock()

    def settle(self) -> None:
        """Does nothing: a transaction settles as a whole."""

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Commits records and offsets together.

        Raises:
            TransactionAbortedError: The transaction must be aborted, and may be tried again.
            FencedError: Another process has taken over.
        """
        # A group coordinator that came back under the producer may never get the request; a new
        # transaction asks for it anew, and nothing is decided before the commit.
        self._repeat(
            lambda left_s: self._producer.send_offsets_to_transaction(
                list(offsets), group, min(_OFFSETS_S, left_s)
            ),
            "send_offsets_to_transaction",
            past_timeouts=False,
        )
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TransactionAbortedError("no time is left to commit")
        # A timeout here leaves the result unknown, so the call is repeated, never aborted.
        self._repeat(self._producer.commit_transaction, "commit_transaction")
        self.open = False
        self._rested = time.monotonic() + _REST_S

    def abort(self) -> None:
        """Aborts the open transaction, if any."""
        if self.open:
            self._repeat(self._producer.abort_transaction, "abort_transaction")
            self.open = False

    def close(self) -> None:
        """Aborts what is open; a broker that is gone will do it by its time-out."""
        if self.open:
            with contextlib.suppress(KafkaException):
                self._producer.abort_transaction(_CLOSE_S)
            self.open = False
        self._watch.close()

    def _repeat(
        self, call: Callable[[float], object], doing: str, *, past_timeouts: bool = True
    ) -> None:
        """Makes a call with the time that an attempt may take, in seconds, until it succeeds."""
        began, deadline = time.monotonic(), self._until()
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            try:
                self._watch(doing, partial(call, min(_ATTEMPT_S, left_s)))
                return
            except KafkaException as error:
                cause = kafka_error(error)
                again = (
                    past_timeouts
                    if cause.code() == KafkaError._TIMED_OUT
                    else bool(cause.retriable())
                )
                if not again or cause.fatal() or cause.txn_requires_abort():
                    self._raise(error, doing)
                if time.monotonic() > deadline:
                    raise KafkaUnavailableError(
                        f"expected the broker to answer {doing}, did not within "
                        f"{deadline - began:.3g} s ({cause.str()}); check the broker"
                    ) from error
                if self.open and time.monotonic() - began > _STUCK_S and self._broker_answers():
                    raise OutputFailedError(
                        f"expected an answer to {doing} within {_STUCK_S:.0f} s, got none although "
                        f"the broker answers ({cause.str()}); restart the role"
                    ) from error
                time.sleep(0.01)

    def _broker_answers(self) -> bool:
        try:
            self._producer.list_topics(timeout=_METADATA_S)
        except KafkaException:
            return False
        return True


class AtLeastOnceOutput(_ProducerOutput):
    """Records flushed first, then offsets: a crash between the two repeats rows.

    Args:
        producer: An idempotent one.
        commit: Commits offsets; told whether to return without waiting for the broker.
    """

    visible_when_settled = True
    rest_s = 0.0

    def __init__(
        self, producer: Producer, commit: Callable[[Sequence[TopicPartition], bool], object]
    ) -> None:
        super().__init__(producer)
        self._commit = commit

    def start(self) -> None:
        """Does nothing: an idempotent producer needs no preparation."""

    def begin(self) -> None:
        """Begins to collect records."""
        self.open = True

    def settle(self) -> None:
        """Waits until every record is in the log.

        Raises:
            TransactionAbortedError: A record was refused or timed out.
        """
        began, deadline = time.monotonic(), self._until()
        if self._producer.flush(max(deadline - began, 0.0)):
            if self._deadline is not None:
                raise TransactionAbortedError("no time is left to wait for records")
            raise KafkaUnavailableError(
                f"expected the broker to take all records, did not within {DEADLINE_S:g} s; "
                "check the broker"
            )
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise TransactionAbortedError(f"produce: {failed.str()}")

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:  # noqa: ARG002
        """Settles the records, then commits the offsets.

        Under a deadline nobody waits for the offsets, since a commit keeps none: librdkafka gives
        partitions back only after the commits that are under way. One that fails repeats rows.
        """
        self.settle()
        try:
            self._commit(offsets, self._deadline is not None)
        except KafkaException as error:
            self._raise(error, "commit of offsets")
        self.open = False

    def abort(self) -> None:
        """Forgets the batch; records already sent stay and will be repeated."""
        self._producer.flush(DEADLINE_S)
        self._failed = None
        self.open = False

    def close(self) -> None:
        """Waits for what was sent."""
        self._producer.flush(_ATTEMPT_S)
