"""Sending ticks: buffered by partition, acknowledged by the broker, counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Producer

from mystocks.sdk.columns import TYPES, Where, is_columnar, row_name, tick_table
from mystocks.sdk.connection import ANSWER_TIMEOUT_S, connected_settings
from mystocks.sdk.encoding import ENCODERS, Columns, Format, columns_of, records
from mystocks.sdk.errors import DeliveryError
from mystocks.sdk.tick import Tick, check_tick, time_to_ns
from schemas.errors import InvalidInputError
from schemas.partitioner import partition_for
from schemas.settings import Settings
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.errors import kafka_error

# Rows of a table that are split by partition at once: enough to fill the batches of many
# partitions, few enough that all partitions advance together.
_SLICE_ROWS = 65_536
_MAX_BATCH_TICKS = 10_000
# How often delivery reports are looked at while nothing else happens.
_REPORT_INTERVAL_S = 0.05


class TickProducer:
    """Sends ticks to Kafka, in order for each symbol, each exactly once while this object lives.

    The broker acknowledges every record (``acks=all``, idempotent). A batch holds ticks of one
    partition, chosen by murmur2 of the symbol as Java clients choose it, and goes out when it has
    `batch_ticks` or its first tick has waited `linger_ms`. The timestamp of a record is the newest
    event time in it. May be used from several threads.

    ::

        with TickProducer() as producer:
            producer.send("AAPL", datetime.now(UTC), 189.98, size=100)
        print(producer.delivered)

    Args:
        bootstrap_servers: ``host:port,…``; None takes the settings' servers, else the stack that
            `mystocks up` keeps running.
        topic: Where to; it must exist.
        format: Encoding of a record: protobuf ``batch``, ``json`` or ``arrow``.
        batch_ticks: Most ticks in one record, 1 to 10,000.
        linger_ms: Longest time in milliseconds that a tick waits for others.
        delivery_timeout_s: A record that is not acknowledged within this time has failed.
        settings: Settings to use; None loads them from the environment.

    Raises:
        ConfigurationError: The environment holds a setting that is not acceptable.
        InvalidInputError: An argument is not acceptable.
        UnavailableError: The broker does not answer or has no such topic.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        topic: str = "market.ticks",
        format: Format = "batch",  # noqa: A002 - what users call it
        batch_ticks: int = 500,
        linger_ms: float = 5.0,
        delivery_timeout_s: float = 30.0,
        settings: Settings | None = None,
    ) -> None:
        if format not in ENCODERS:
            raise InvalidInputError(
                f"expected one of {', '.join(ENCODERS)}, was {format!r} (format); correct it"
            )
        if not 1 <= batch_ticks <= _MAX_BATCH_TICKS:
            raise InvalidInputError(
                f"expected 1 to {_MAX_BATCH_TICKS}, was {batch_ticks} (batch_ticks); correct it"
            )
        if not 0 <= linger_ms <= 60_000:
            raise InvalidInputError(f"expected 0 to 60000, was {linger_ms} (linger_ms); correct it")
        if not 0 < delivery_timeout_s <= 3600:
            raise InvalidInputError(
                f"expected up to 3600, was {delivery_timeout_s} (delivery_timeout_s); correct it"
            )
        settings = connected_settings(bootstrap_servers, settings)
        self._topic = topic
        self._format = format
        self._batch_ticks = batch_ticks
        self._linger_s = linger_ms / 1000
        self._delivery_timeout_s = delivery_timeout_s
        self._partitions = partition_count(admin_client(settings, ANSWER_TIMEOUT_S), topic)
        self._producer = Producer(
            {
                **settings.kafka.as_librdkafka(),
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                # Single ticks gather in librdkafka, batches here.
                "linger.ms": linger_ms if batch_ticks == 1 else min(linger_ms, 1.0),
                "message.timeout.ms": int(delivery_timeout_s * 1000),
                "queue.buffering.max.messages": 500_000,
                "queue.buffering.max.kbytes": 128 * 1024,
                # Trouble is told by the errors of this class, not by lines on stderr.
                "log_level": 0,
            }
        )
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._buffers: dict[int, list[Tick]] = {}
        self._since: dict[int, float] = {}
        self._reports = threading.Lock()
        self._sent = self._delivered = self._failed = self._raised = 0
        self._first_error: KafkaError | None = None
        self._background_error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._linger, name="tick-producer", daemon=True)
        self._thread.start()

    @property
    def topic(self) -> str:
        """Where ticks go."""
        return self._topic

    @property
    def partitions(self) -> int:
        """Number of partitions of the topic."""
        return self._partitions

    @property
    def sent(self) -> int:
        """Ticks taken by `send` and `send_many` so far."""
        return self._sent

    @property
    def delivered(self) -> int:
        """Ticks acknowledged by the broker so far."""
        self._producer.poll(0)
        return self._delivered

    @property
    def failed(self) -> int:
        """Ticks that the broker refused or did not acknowledge in time."""
        return self._failed

    def send(
        self,
        symbol: str,
        event_time_ns: int | datetime,
        price: float,
        size: float = 0.0,
        *,
        bid: float | None = None,
        ask: float | None = None,
        sequence: int | None = None,
        volume: float | None = None,
        amount: float | None = None,
    ) -> None:
        """Sends one tick; returns before it is acknowledged.

        Args:
            symbol: ``[A-Za-z0-9._:/^=-]{1,32}``.
            event_time_ns: Nanoseconds since 1970 in UTC, or a datetime with a time zone.
            price: Finite and above 0.
            size: Traded quantity, finite and at least 0.
            bid: Best bid.
            ask: Best ask.
            sequence: The feed's own number of this tick.
            volume: Traded quantity since the session began.
            amount: Turnover since the session began.

        Raises:
            DeliveryError: Ticks sent earlier were not acknowledged.
            InvalidInputError: A field is not acceptable; the message names it. Nothing was sent.
        """
        if isinstance(event_time_ns, datetime):
            event_time_ns = time_to_ns(event_time_ns)
        tick = Tick(symbol, event_time_ns, price, size, bid, ask, sequence, volume, amount)
        self._send(check_tick(tick, f"tick {self._sent}"))

    def send_many(self, ticks: Any, *, where: Where = row_name) -> int:
        """Sends many ticks; returns how many, before they are acknowledged.

        Args:
            ticks: A pyarrow table or record batch, a data frame (pandas, Polars), a mapping of
                columns, or an iterable of `Tick` or of tuples in its order. Columns are those of
                `Tick`; ``event_time_ns`` may also be a timestamp with a time zone.
            where: Names row i in an error.

        Raises:
            DeliveryError: Ticks sent earlier were not acknowledged.
            InvalidInputError: A field is not acceptable; the message names it and the row. Of a
                table nothing was sent, of an iterable what came before.
        """
        if not is_columnar(ticks):
            return self._send_each(ticks, where)
        table = tick_table(ticks, where)
        with self._lock:
            self._check()
            self._emit_all()
            for start in range(0, table.num_rows, _SLICE_ROWS):
                for partition, columns in self._split(table.slice(start, _SLICE_ROWS)):
                    self._produce(partition, columns)
                self._producer.poll(0)
            self._sent += table.num_rows
            self._wake.notify()
        return int(table.num_rows)

    def flush(self, timeout_s: float | None = None) -> None:
        """Sends what is buffered and waits until all of it is acknowledged.

        Args:
            timeout_s: Longest wait; None waits as long as a record may take.

        Raises:
            DeliveryError: Ticks were not acknowledged; the counts are in it.
        """
        with self._lock:
            self._emit_all()
        wait = self._delivery_timeout_s + 5 if timeout_s is None else timeout_s
        waiting = self._producer.flush(wait)
        self._check()
        if waiting:
            raise DeliveryError(
                f"expected all {self._sent} ticks to be acknowledged within {wait:g} s, "
                f"{self._sent - self._delivered} were not; check the broker",
                failed=self._failed,
                delivered=self._delivered,
            )

    def close(self) -> None:
        """Flushes and ends the producer; it sends nothing afterwards.

        Raises:
            DeliveryError: Ticks were not acknowledged.
        """
        if self._closed:
            return
        try:
            self.flush()
        finally:
            with self._lock:
                self._closed = True
                self._wake.notify()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except DeliveryError as second:
            error.add_note(str(second))

    def _send(self, tick: Tick) -> None:
        with self._lock:
            self._check()
            partition = partition_for(tick.symbol, self._partitions)
            if self._batch_ticks == 1:
                self._produce(partition, columns_of((tick,)))
                self._sent += 1
                self._producer.poll(0)
                return
            buffer = self._buffers.get(partition)
            if buffer is None:
                buffer = self._buffers[partition] = []
            if not buffer:
                self._since[partition] = time.monotonic()
                if len(self._since) == 1:
                    self._wake.notify()
            buffer.append(tick)
            self._sent += 1
            if len(buffer) >= self._batch_ticks:
                self._emit(partition)
                self._producer.poll(0)

    def _send_each(self, ticks: Iterable[Any], where: Where) -> int:
        count = 0
        for count, values in enumerate(ticks, 1):
            try:
                tick = values if isinstance(values, Tick) else Tick(*values)
            except TypeError:
                raise InvalidInputError(
                    f"expected a tick (symbol, event_time_ns, price[, size…]), was {values!r:.80} "
                    f"({where(count - 1)}); correct it"
                ) from None
            self._send(check_tick(tick, where(count - 1)))
        return count

    def _split(self, table: pa.Table) -> Iterator[tuple[int, Columns]]:
        """Batches of one partition each, in the order of the table."""
        symbols = table["symbol"].combine_chunks().dictionary_encode()
        partition_of = pa.array(
            [partition_for(name, self._partitions) for name in symbols.dictionary.to_pylist()],
            pa.int32(),
        )
        partitions = partition_of.take(symbols.indices)
        for partition in pc.unique(partitions).to_pylist():
            rows = table.filter(pc.equal(partitions, partition))
            for start in range(0, rows.num_rows, self._batch_ticks):
                values = rows.slice(start, self._batch_ticks).to_pydict()
                yield partition, [values.get(name) for name in TYPES]

    def _emit_all(self) -> None:
        for partition in list(self._since):
            self._emit(partition)

    def _emit(self, partition: int) -> None:
        ticks = self._buffers[partition]
        self._buffers[partition] = []
        del self._since[partition]
        self._produce(partition, columns_of(ticks))

    def _produce(self, partition: int, columns: Columns) -> None:
        for value, (symbols, times, *_) in records(columns, self._format):
            assert symbols is not None
            assert times is not None
            self._produce_record(
                value,
                partition,
                # A record of several symbols belongs to none of them.
                key=symbols[0] if symbols.count(symbols[0]) == len(symbols) else None,
                timestamp=max(times) // 1_000_000,
                on_delivery=partial(self._on_delivery, len(symbols)),
            )

    def _produce_record(self, value: bytes, partition: int, **rest: Any) -> None:
        deadline = time.monotonic() + self._delivery_timeout_s
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, **rest)
                return
            except BufferError:
                # The queue is full: the broker sets the pace.
                self._producer.poll(0.1)
                if time.monotonic() > deadline:
                    raise self._delivery_error("the broker takes no more records") from None
            except KafkaException as error:
                raise self._delivery_error(kafka_error(error).str()) from None

    def _on_delivery(self, ticks: int, error: KafkaError | None, _message: object) -> None:
        with self._reports:
            if error is None:
                self._delivered += ticks
            else:
                self._failed += ticks
                self._first_error = self._first_error or error

    def _check(self) -> None:
        """Raises what went wrong since the last call."""
        if self._closed:
            raise InvalidInputError("expected an open producer, was closed; make a new one")
        if self._background_error is not None:
            error, self._background_error = self._background_error, None
            raise error
        if self._failed > self._raised:
            self._raised = self._failed
            reason = self._first_error.str() if self._first_error else "unknown"
            raise self._delivery_error(reason)

    def _delivery_error(self, reason: str) -> DeliveryError:
        return DeliveryError(
            f"expected every tick to be acknowledged, {self._failed} of {self._sent} were not "
            f"({reason}); check the broker and send those again",
            failed=self._failed,
            delivered=self._delivered,
        )

    def _linger(self) -> None:
        """Emits batches whose first tick has waited long enough, and collects reports."""
        while not self._closed:
            with self._lock:
                now = time.monotonic()
                try:
                    for partition, since in list(self._since.items()):
                        if now - since >= self._linger_s:
                            self._emit(partition)
                except DeliveryError as error:
                    self._background_error = error
                if self._since:
                    self._wake.wait(max(0.0, min(self._since.values()) + self._linger_s - now))
                elif len(self._producer):
                    self._wake.wait(_REPORT_INTERVAL_S)
                elif not self._closed:
                    self._wake.wait()
            self._producer.poll(0)
