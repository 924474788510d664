"""A features topic written by hand, and readers of the hub that note what they see."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import numpy as np
import orjson
import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from grpc_bridge.fanout.hub import FeatureHub
from mystocks.v1.market_pb2 import FeatureBlock, ResumeToken
from mystocks.v1.realtime_pb2 import (
    FeatureSelection,
    SubscribeFeaturesRequest,
    SubscribeFeaturesResponse,
)
from schemas.settings import load_settings
from schemas.topics import market_data_config
from streams.kafka.admin import await_metadata

TIME = 1_362_171_600_000_000_000
SECOND = 1_000_000_000
PARTITIONS = 2
SYMBOLS = ("AAPL", "IBM", "MSFT")
NAMES = ("sma_3", "rsi_14")


class FeaturesTopic:
    """Writes rows as the role does: row n is symbol n modulo the number of symbols, price 100 + n.

    Event times rise by one second a row, and so do the source offsets by one a record.
    """

    def __init__(self, bootstrap: str, name: str, *, create: bool = True) -> None:
        self.bootstrap, self.set, self.topic = bootstrap, name, f"features.{name}"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 0,
                "reconnect.backoff.max.ms": 200,
                # Without it a record that is sent again may land behind later ones.
                "enable.idempotence": True,
            }
        )
        self.next_row = dict.fromkeys(range(PARTITIONS), 0)
        self.records = dict.fromkeys(range(PARTITIONS), 0)
        if create:
            self.create()

    def create(self, **config: str) -> None:
        config = market_data_config(-1) | {k.replace("_", "."): v for k, v in config.items()}
        new = NewTopic(self.topic, num_partitions=PARTITIONS, config=config)
        self.admin.create_topics([new])[self.topic].result(10)
        await_metadata(self.admin, [self.topic])

    def write(
        self,
        partition: int,
        count: int,
        *,
        first_row: int | None = None,
        symbols: tuple[str, ...] = SYMBOLS,
        names: tuple[str, ...] = NAMES,
        as_json: bool = False,
        flush: bool = True,
    ) -> None:
        first = self.next_row[partition] if first_row is None else first_row
        self.next_row[partition] = max(self.next_row[partition], first + count)
        rows = range(first, first + count)
        value = _json(rows, symbols, names) if as_json else _arrow(rows, symbols, names)
        record = self.records[partition]
        self.records[partition] += 1
        self.producer.produce(
            self.topic,
            value,
            partition=partition,
            timestamp=(TIME + rows[-1] * SECOND) // 1_000_000,
            headers=[
                ("first_row", b"%d" % first),
                ("rows", b"%d" % count),
                ("source_first_offset", b"%d" % record),
                ("source_last_offset", b"%d" % record),
                ("set_hash", b"hash%d" % len(names)),
            ],
        )
        if flush:
            self.producer.flush()

    def settings(self, **grpc: object):
        return load_settings(
            kafka={"bootstrap_servers": self.bootstrap}, features={"name": self.set}, grpc=grpc
        )

    def hub(
        self, *, store_bytes: int = 32 * 1024**2, check_topics_s: float = 10.0, **grpc: object
    ) -> FeatureHub:
        return FeatureHub(
            self.settings(**grpc), store_bytes=store_bytes, check_topics_s=check_topics_s
        )

    def request(self, *, symbols=(), names=(), policy=0, **start) -> SubscribeFeaturesRequest:
        selection = FeatureSelection(
            feature_set=self.set, symbols=symbols, names=names, policy=policy
        )
        return SubscribeFeaturesRequest(selection=selection, **start)

    def everything(self) -> Counter:
        """Every row identity once."""
        return Counter((p, row) for p, end in self.next_row.items() for row in range(end))


@contextlib.asynccontextmanager
async def running(hub: FeatureHub) -> AsyncIterator[FeatureHub]:
    """The hub, started, and closed at the end."""
    await hub.start()
    try:
        yield hub
    finally:
        await hub.close()


def value_of(row: int, k: int) -> float:
    """Feature k of a row; NaN while it warms up."""
    return float("nan") if row < 3 else row / 8 + k


def _arrow(rows, symbols, names) -> bytes:
    batch = pa.RecordBatch.from_pydict(
        {
            "symbol": pa.array([symbols[row % len(symbols)] for row in rows]).dictionary_encode(),
            "event_time": pa.array([TIME + r * SECOND for r in rows], pa.timestamp("ns", "UTC")),
            "price": [100.0 + row for row in rows],
        }
        | {
            name: pa.array([None if r < 3 else value_of(r, k) for r in rows], pa.float64())
            for k, name in enumerate(names)
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _json(rows, symbols, names) -> bytes:
    return orjson.dumps(
        [
            {
                "symbol": symbols[row % len(symbols)],
                "event_time_ns": TIME + row * SECOND,
                "price": 100.0 + row,
            }
            | {name: value_of(row, k) for k, name in enumerate(names)}
            for row in rows
        ]
    )


class Seen:
    """Row identities that a reader got, and its last token; values are checked unless told."""

    def __init__(self, *, check: bool = True) -> None:
        self._check = check
        self.rows: Counter = Counter()
        self.in_order: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
        self.token = ResumeToken()
        self.responses: list[SubscribeFeaturesResponse] = []

    def add(self, response: SubscribeFeaturesResponse) -> None:
        self.responses.append(response)
        self.token = response.resume
        for block in response.blocks:
            numbers = row_numbers(block)
            if self._check:
                check_values(block)
            self.rows.update((block.first_row.partition, number) for number in numbers)
            self.in_order[block.first_row.partition] += numbers

    def __len__(self) -> int:
        return sum(self.rows.values())


def row_numbers(block: FeatureBlock) -> list[int]:
    offsets = block.row_offset or range(len(block.symbol_index))
    return [block.first_row.row + offset for offset in offsets]


def check_values(block: FeatureBlock, symbols: tuple[str, ...] = SYMBOLS) -> None:
    """Every number of a block is that of its row."""
    numbers = row_numbers(block)
    count = len(numbers)
    assert len(block.symbol_index) == len(block.event_time_ns) == len(block.prices) == count
    assert len(block.values) == count * len(block.names)
    assert len(set(block.symbols)) == len(block.symbols)
    assert set(block.symbol_index) == set(range(len(block.symbols)))
    values = np.array(block.values).reshape(len(block.names), count)
    for i, row in enumerate(numbers):
        assert block.symbols[block.symbol_index[i]] == symbols[row % len(symbols)]
        assert block.event_time_ns[i] == TIME + row * SECOND
        assert block.prices[i] == 100.0 + row
        for name, column in zip(block.names, values, strict=True):
            expected = value_of(row, NAMES.index(name))
            assert column[i] == expected or (np.isnan(column[i]) and np.isnan(expected))


async def collect(
    hub: FeatureHub,
    request: SubscribeFeaturesRequest,
    count: int,
    *,
    seen: Seen | None = None,
    stands: asyncio.Event | None = None,
    pause_s: float = 0.0,
) -> Seen:
    """Reads until `count` rows came; `stands` is set once the first response is there."""
    seen = seen if seen is not None else Seen()
    before = len(seen)
    async with hub.subscribe(request.selection, request) as subscription:
        async for encoded in subscription:
            seen.add(SubscribeFeaturesResponse.FromString(encoded))
            if stands is not None:
                stands.set()
            if len(seen) >= count:
                break
            if pause_s:
                await asyncio.sleep(pause_s)
        assert subscription.rows_sent == len(seen) - before
    return seen
