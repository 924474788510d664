"""Reading feature rows exactly once, by row identity."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from mystocks.sdk import start as starts
from mystocks.sdk.connection import ANSWER_TIMEOUT_S, connected_settings
from mystocks.sdk.decode import block_of
from mystocks.sdk.errors import RowGapError
from mystocks.sdk.position import Position
from mystocks.sdk.rows import FeatureBlock, FeatureRow
from schemas.errors import InvalidInputError, UnavailableError
from schemas.settings import Settings
from schemas.symbols import symbol_problem
from schemas.topics import features_topic
from streams.kafka.admin import admin_client, partition_count, topic_id
from streams.kafka.clients import reader
from streams.kafka.errors import kafka_error
from streams.kafka.feature_positions import first_row_of

# Python handles signals and `close` between two polls.
_POLL_S = 0.1
# The client connects again by itself.
_PASSING = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE})


class FeatureSubscriber:
    """Iterates over the rows of a feature set as they are committed.

    Every row has an identity, (partition, row): a gap-free count that the broker keeps with the
    row. The subscriber drops rows it has seen (an at-least-once job may repeat some), raises if one
    is missing, and `position` resumes it at exactly the next row, also in another process.
    Order holds within a partition, hence within a symbol.

    ::

        with FeatureSubscriber(symbols=["AAPL"], start="earliest", follow=False) as rows:
            for row in rows:
                print(row.event_time_ns, row.price, row.values["sma_20"])

    Args:
        bootstrap_servers: ``host:port,…``; None takes the settings' servers, else the stack that
            `mystocks up` keeps running.
        set: Name of the feature set; its topic is ``features.<set>``.
        symbols: Symbols of interest; None for all.
        start: ``"latest"`` (rows committed from now on), ``"earliest"``, an aware datetime (rows
            with that event time or a newer one), a `Position` or its text, or a mapping of
            partition to the last row already processed (other partitions from the earliest).
        follow: False ends the iteration at what was committed when the subscriber was made.
        timeout_s: The iteration ends when no row came for this long; None waits for ever. The next
            iteration goes on from there.
        limit: The iteration ends after this many rows.
        settings: Settings to use; None loads them from the environment.

    Raises:
        ConfigurationError: The environment holds a setting that is not acceptable.
        InvalidInputError: An argument is not acceptable.
        RowGapError: The row to resume after was deleted from the topic.
        UnavailableError: The broker does not answer or has no such topic.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        set: str = "ticks",  # noqa: A002 - the field's own word
        symbols: Iterable[str] | None = None,
        start: starts.Start = "latest",
        follow: bool = True,
        timeout_s: float | None = None,
        limit: int | None = None,
        settings: Settings | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidInputError(f"expected at least 1, was {limit} (limit); correct it")
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidInputError(
                f"expected more than 0, was {timeout_s} (timeout_s); correct it"
            )
        self._set = set
        self._symbols = _symbol_filter(symbols)
        self._topic = features_topic(set)
        self._timeout_s = timeout_s
        self._limit = limit
        resume = starts.parse(start, set)

        settings = connected_settings(bootstrap_servers, settings)
        admin = admin_client(settings, ANSWER_TIMEOUT_S)
        partitions = partition_count(admin, self._topic)
        self._consumer = reader(settings, f"mystocks-subscriber.{set}")
        try:
            self._topic_id = topic_id(admin, self._topic)
            plan = starts.resolve(self._consumer, self._topic, self._topic_id, partitions, resume)
            self._consumer.assign(
                [TopicPartition(self._topic, p, offset) for p, offset in plan.offsets.items()]
            )
        except KafkaException as error:
            self._consumer.close()
            raise UnavailableError(
                f"expected Kafka at {settings.kafka.bootstrap_servers} to answer, did not "
                f"({kafka_error(error).str()}); check the broker"
            ) from None
        except BaseException:
            self._consumer.close()
            raise
        self._offsets = dict(plan.offsets)
        self._last = dict(plan.rows)
        self._since_ns = plan.since_ns
        # Partitions of which something is still to be read; None for "until closed".
        self._open = (
            None if follow else {p: end for p, end in plan.ends.items() if plan.offsets[p] < end}
        )
        self._block: FeatureBlock | None = None
        self._rows: Iterator[FeatureRow] = iter(())
        self._taken = 0  # rows of the current block
        self._count = 0  # rows in all
        self._read: dict[int, int] = {}  # by this object, unlike _last
        self._duplicates = 0
        self._closed = False

    @property
    def position(self) -> Position:
        """Resume token: all rows up to the one last yielded (for `blocks`: block) are done."""
        return Position(
            set=self._set,
            rows=dict(self._last),
            offsets={p: o for p, o in self._offsets.items() if p not in self._last},
            topic_id=self._topic_id,
            since_ns=self._since_ns,
        )

    @property
    def duplicates(self) -> int:
        """Rows dropped so far because they had been read before; 0 if the job is exactly-once."""
        return self._duplicates

    def __iter__(self) -> Iterator[FeatureRow]:
        return self

    def __next__(self) -> FeatureRow:
        if self._closed or self._count == self._limit:
            raise StopIteration
        while (row := next(self._rows, None)) is None:
            self._finish_block()
            block = self._next_block()
            if block is None:
                raise StopIteration
            self._block, self._rows, self._taken = block, iter(block), 0
        self._last[row.partition] = row.row
        self._taken += 1
        self._count += 1
        return row

    def blocks(self) -> Iterator[FeatureBlock]:
        """Yields whole records of the topic instead of rows, which is faster by far.

        `limit` counts rows here too. Block boundaries mean nothing.
        """
        while not self._closed and self._count != self._limit:
            if self._block is not None and self._taken < len(self._block.rows):
                block: FeatureBlock | None = self._block.part(self._taken)
            else:
                self._finish_block()
                block = self._next_block()
            if block is None:
                return
            self._block, self._rows, self._taken = None, iter(()), 0
            room = len(block.rows) if self._limit is None else self._limit - self._count
            if room < len(block.rows):
                self._block, self._rows, self._taken = block, iter(block.part(room)), room
                block = block.part(0, room)
            self._last[block.partition] = block.last_row
            self._count += len(block.rows)
            if block.rows:
                yield block

    def close(self) -> None:
        """Ends the iteration; may be called from another thread."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        self._consumer.close()

    def _finish_block(self) -> None:
        """Counts rows that were left out at the end of the current block as done."""
        if self._block is not None:
            self._last[self._block.partition] = self._block.last_row
            self._block = None

    def _next_block(self) -> FeatureBlock | None:
        """The next record; None at the end, after the time-out or when closed."""
        waited_since = time.monotonic()
        while not self._closed and self._open != {}:
            wait = _POLL_S
            if self._timeout_s is not None:
                wait = min(wait, waited_since + self._timeout_s - time.monotonic())
                if wait <= 0:
                    return None
            message = self._consumer.poll(wait)
            block = self._accept(message) if message is not None else None
            if block is not None:
                return block
        return None

    def _accept(self, message: Message) -> FeatureBlock | None:
        partition, error = message.partition(), message.error()
        if error is not None:
            self._check(error, partition)
            return None
        if self._open is not None and message.offset() + 1 >= self._open.get(partition, 0):
            end = self._open.pop(partition, 0)
            if message.offset() >= end:
                return None
        last = self._last.get(partition)
        first_row = first_row_of(message)
        if last is not None and first_row > last + 1:
            raise RowGapError(
                f"expected row {last + 1} of partition {partition} in {self._topic}, was "
                f"{first_row}; the rows between were deleted, start from 'earliest'"
            )
        block = block_of(message, after=last, symbols=self._symbols, since_ns=self._since_ns)
        read = self._read.get(partition, -1)
        self._duplicates += max(0, min(read, block.last_row) - first_row + 1)
        self._read[partition] = max(read, block.last_row)
        if not block.rows:
            self._last[partition] = max(block.last_row, -1 if last is None else last)
            return None
        return block

    def _check(self, error: KafkaError, partition: int) -> None:
        """Raises what ends the subscription; the rest, such as a lost connection, passes."""
        if error.code() == KafkaError._PARTITION_EOF:
            if self._open is not None:
                self._open.pop(partition, None)
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise RowGapError(
                f"expected the rows of partition {partition} in {self._topic} to be there still, "
                "they were deleted; start from 'earliest'"
            )
        elif error.code() not in _PASSING and not error.retriable():
            raise UnavailableError(
                f"expected to read {self._topic}, was refused ({error.str()}); check the broker"
            )


def _symbol_filter(symbols: Iterable[str] | None) -> pa.Array | None:
    if symbols is None:
        return None
    if isinstance(symbols, str):
        symbols = (symbols,)
    names = list(symbols)
    for name in names:
        problem = symbol_problem(name)
        if problem:
            raise InvalidInputError(f"{problem} (symbols); correct it")
    return pa.array(names, pa.utf8())
