"""The Redis table: newer rows only, whole partitions after a lost connection, no blocking."""

import json
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis
from pydantic import SecretStr

from schemas.processing import LatestRows
from schemas.settings import RedisSettings
from streams.local.stack import LocalStack
from streams.metrics import LoopMetrics
from streams.tables.feature_table import FeatureTable, NoTable, TableNames, connect

pytestmark = pytest.mark.kafka


def rows(
    partition: int, newest: int, prices: dict[str, float], appeared: frozenset[str] = frozenset()
) -> LatestRows:
    symbols = sorted(prices)
    return LatestRows(
        partition,
        symbols,
        np.full(len(symbols), 1_700_000_000_000_000_000),
        np.array([prices[s] for s in symbols]),
        np.full(len(symbols), newest),
        np.array([[prices[s] / 2, np.nan] for s in symbols]),
        newest,
        appeared,
    )


@pytest.fixture
def open_table(redis_url: str, unique: str) -> Iterator[Callable[..., FeatureTable]]:
    tables = []

    def make(topic_id: str = "topic-1", url: str = redis_url) -> FeatureTable:
        settings = RedisSettings(url=SecretStr(url), timeout_s=0.5)
        table = FeatureTable(
            connect(settings),
            TableNames.of(unique),
            columns=("half", "never"),
            topic_id=topic_id,
            metrics=LoopMetrics(),
        )
        tables.append(table)
        return table

    yield make
    for table in tables:
        table.close(1.0)


def await_ready(table: FeatureTable) -> None:
    deadline = time.monotonic() + 10
    while not table.ready:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read(redis_url: str, unique: str) -> dict[str, dict]:
    client = redis.Redis.from_url(redis_url)
    return {k.decode(): json.loads(v) for k, v in client.hgetall(f"features:{unique}").items()}


def test_a_row_is_a_json_object_with_its_identity(open_table, redis_url, unique):
    table = open_table()
    table.offer([rows(3, 41, {"AAPL": 10.0})])
    await_ready(table)
    assert read(redis_url, unique) == {
        "AAPL": {
            "symbol": "AAPL",
            "event_time_ns": 1_700_000_000_000_000_000,
            "price": 10.0,
            "partition": 3,
            "row": 41,
            "half": 5.0,
            "never": None,
        }
    }


def test_a_process_that_was_replaced_cannot_move_rows_back_in_time(open_table, redis_url, unique):
    owner, zombie = open_table(), open_table()
    owner.offer([rows(0, 100, {"A": 2.0})])
    await_ready(owner)
    zombie.offer([rows(0, 99, {"A": 1.0})])
    await_ready(zombie)
    assert read(redis_url, unique)["A"]["price"] == 2.0
    zombie.offer([rows(1, 5, {"B": 1.0})])
    await_ready(zombie)
    assert read(redis_url, unique)["B"]["price"] == 1.0


def test_rows_of_a_topic_that_was_created_again_replace_the_old(open_table, redis_url, unique):
    old, new = open_table("topic-1"), open_table("topic-2")
    old.offer([rows(0, 100, {"A": 2.0})])
    await_ready(old)
    new.offer([rows(0, 0, {"A": 3.0})])
    await_ready(new)
    assert read(redis_url, unique)["A"]["price"] == 3.0


def test_a_symbol_that_moves_to_another_partition_is_counted(open_table):
    table = open_table()
    table.offer([rows(0, 1, {"A": 1.0, "B": 1.0}, frozenset({"A", "B"}))])
    await_ready(table)
    table.offer([rows(1, 1, {"A": 1.0, "C": 1.0}, frozenset({"A", "C"}))])
    await_ready(table)
    counted = table._metrics.registry.get_sample_value("mystocks_symbol_partition_conflicts_total")
    assert counted == 1


def test_thousands_of_symbols_are_written_whole(open_table, redis_url, unique):
    table = open_table()
    prices = {f"S{i:05d}": 1.0 + i for i in range(3_210)}
    table.offer([rows(0, 9, prices, frozenset(prices))])
    await_ready(table)
    stored = read(redis_url, unique)
    assert {symbol: row["price"] for symbol, row in stored.items()} == prices


def test_a_lost_redis_blocks_nothing_and_asks_for_everything_when_it_is_back(tmp_path, unique):
    server = LocalStack(tmp_path, kafka=False)
    url = server.start().redis
    settings = RedisSettings(url=SecretStr(url), timeout_s=0.3)
    metrics = LoopMetrics()
    table = FeatureTable(
        connect(settings),
        TableNames.of(unique),
        columns=("half", "never"),
        topic_id="t",
        metrics=metrics,
    )
    try:
        table.offer([rows(0, 1, {"A": 1.0})])
        await_ready(table)
        server.stop()
        began = time.monotonic()
        table.offer([rows(0, 2, {"A": 2.0})])
        assert time.monotonic() - began < 0.1
        deadline = time.monotonic() + 10
        while not table._lost:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not table.ready
        server = LocalStack(tmp_path, kafka=False)
        assert server.start().redis == url
        await_ready(table)
        assert table.needs_everything
        assert not table.needs_everything
        table.offer([rows(0, 2, {"A": 2.0})])
        await_ready(table)
        stored = redis.Redis.from_url(url).hget(f"features:{unique}", "A")
        assert json.loads(stored)["price"] == 2.0
    finally:
        table.close(1.0)
        server.stop()


def test_without_redis_rows_are_in_the_topic_alone():
    table = NoTable()
    table.offer([rows(0, 1, {"A": 1.0})])
    assert table.ready
    assert not table.needs_everything
