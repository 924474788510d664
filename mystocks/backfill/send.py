"""Sending bars: each to its symbol's partition, in the order of time."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message
from numpy.typing import NDArray

from schemas import headers as names
from schemas.bars import BarColumns, encode_bars, rows_per_bars_block
from schemas.partitioner import partition_for
from schemas.settings import Settings
from schemas.topics import TopicSpec, market_data_config
from streams.kafka.admin import admin_client, ensure_topics, partition_count
from streams.kafka.clients import producer
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.history.kernels import rank_times

_HEADERS = [(names.CONTENT_TYPE, names.CONTENT_ARROW.encode())]
_DELIVERY_TIMEOUT_S = 60.0


class BarSender:
    """Writes bars to a topic, which is created where it is missing.

    Args:
        settings: Where Kafka is.
        topic: Where to; a new one gets as many partitions as the topic of ticks.

    Attributes:
        bytes: Sum of all record values.
        records: Number of records.

    Raises:
        KafkaUnavailableError: No broker answered, or the topic could not be created.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self.bytes = self.records = 0
        admin = admin_client(settings)
        ensure_topics(settings, [_spec(settings, topic, admin)])
        self.partitions = partition_count(admin, topic)
        self._home: NDArray[np.int32] = np.empty(0, np.int32)
        self._producer = producer(settings, delivery_timeout_s=_DELIVERY_TIMEOUT_S)
        self._failed = 0
        self._error: KafkaError | None = None

    def send(self, symbols: Sequence[str], bars: BarColumns, sent: Callable[[int], None]) -> None:
        """Sends bars in order of their ends, those of equal ends as they are.

        Args:
            symbols: By code.
            bars: Any number of them.
            sent: Is told after each record how many bars it held.

        Raises:
            KafkaUnavailableError: The broker did not take earlier ones.
        """
        if (bars.end_time[1:] < bars.end_time[:-1]).any():
            bars = bars.take(_order(bars.end_time))
        new = [partition_for(symbol, self.partitions) for symbol in symbols[len(self._home) :]]
        self._home = np.append(self._home, np.array(new, np.int32))
        home = self._home[bars.code]
        most = rows_per_bars_block()
        # In turn, so that no partition waits for the other ones.
        mine = [np.flatnonzero(home == partition) for partition in range(self.partitions)]
        for first in range(0, max(map(len, mine), default=0), most):
            for partition, rows in enumerate(mine):
                part = bars.take(rows[first : first + most])
                if len(part):
                    self._produce(partition, encode_bars(symbols, part), int(part.end_time[-1]))
                    sent(len(part))

    def flush(self) -> None:
        """Waits until the broker has taken everything.

        Raises:
            KafkaUnavailableError: It has not.
        """
        left = self._producer.flush(_DELIVERY_TIMEOUT_S)
        self._check(left)

    def _produce(self, partition: int, value: bytes, newest_ns: int) -> None:
        deadline = time.monotonic() + _DELIVERY_TIMEOUT_S
        while True:
            try:
                self._producer.produce(
                    self.topic,
                    value,
                    partition=partition,
                    timestamp=newest_ns // 1_000_000,
                    headers=_HEADERS,
                    on_delivery=self._delivered,
                )
                break
            except BufferError:
                self._producer.poll(0.05)
                if time.monotonic() > deadline:
                    self._check(len(self._producer))
            except KafkaException as error:
                self._error = kafka_error(error)
                self._check(1)
        self.bytes += len(value)
        self.records += 1
        self._producer.poll(0)
        self._check(0)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed += 1
            self._error = self._error or error

    def _check(self, left: int) -> None:
        if self._failed or left:
            reason = self._error.str() if self._error is not None else "no answer in time"
            raise KafkaUnavailableError(
                f"expected the broker to take all records of {self.topic}, was refused "
                f"{self._failed + left} ({reason}); run the same command again, bars that arrive "
                "twice count once"
            )


def _order(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the places of the rows in order of time, int64 [n]; equal ones stay in order."""
    ranks, distinct = rank_times(times)
    # NumPy sorts integers of 16 bits by counting.
    small = len(distinct) <= 1 << 16
    return np.argsort(ranks.astype(np.uint16) if small else ranks, kind="stable")


def _spec(settings: Settings, topic: str, admin: Any) -> TopicSpec:
    source = settings.features.source_topic
    known = admin.list_topics(timeout=10).topics
    partitions = len(known[source].partitions) if source in known else None
    config = market_data_config(settings.kafka.retention_bytes)
    return TopicSpec(topic, "-", "Arrow IPC stream", "bars", partitions, config)
