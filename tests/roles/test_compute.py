"""The compute role end to end: same numbers as live, bad requests, kill -9."""

import asyncio
import json

import numpy as np
import pytest

from mystocks.v1.market_pb2 import OhlcvRows, TimeRange
from schemas.partitioner import partition_for
from schemas.requests import Code, RequestFailedError
from schemas.ticks.encode import encode_arrow, encode_batch
from tests.roles.compute_rig import ComputeRig, compute
from tests.roles.rig import PARTITIONS

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio, pytest.mark.timeout(180)]

NOW = 1_700_000_000_000_000_000
LIVE = ["sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd_12_26_9", "bollinger_20_2"]


@pytest.fixture
def rig(kafka_bootstrap, unique, tmp_path):
    made = []

    def make(**settings) -> ComputeRig:
        made.append(ComputeRig(unique, kafka_bootstrap, tmp_path, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def rows_of(count: int, seed: int = 1) -> OhlcvRows:
    close = 100 + np.cumsum(np.random.default_rng(seed).normal(0, 0.1, count))
    return OhlcvRows(
        event_time_ns=[NOW + i for i in range(count)],
        close=close,
        high=close + 0.5,
        low=close - 0.5,
        volume=np.ones(count),
    )


def mixed_messages(symbols: list[str], ticks: int) -> list[tuple[str, bytes]]:
    """Returns ticks of several symbols in all encodings, with some to refuse among them."""
    rng = np.random.default_rng(5)
    chosen = rng.integers(0, len(symbols), ticks)
    prices = np.round(50 + np.cumsum(rng.normal(0, 0.05, ticks)), 3)
    messages = []
    for start in range(0, ticks, 100):
        by_symbol: dict[str, list[int]] = {}
        for i in range(start, min(start + 100, ticks)):
            by_symbol.setdefault(symbols[chosen[i]], []).append(i)
        for symbol, rows in by_symbol.items():
            columns = (
                [symbol] * len(rows),
                [NOW + i for i in rows],
                [float(prices[i]) if i % 97 else -1.0 for i in rows],
            )
            kind = len(messages) % 3
            if kind == 0:
                value = encode_batch(*columns)
            elif kind == 1:
                value = encode_arrow(*columns)
            else:
                value = json.dumps(
                    [
                        {"symbol": s, "event_time_ns": t, "price": p}
                        for s, t, p in zip(*columns, strict=True)
                    ]
                ).encode()
            messages.append((symbol, value))
    return messages


async def test_over_the_log_every_bit_is_that_of_the_live_features(features, rig):
    live = features(indicators=LIVE)
    symbols = [f"S{i}" for i in range(12)]
    messages = mixed_messages(symbols, 6_000)
    live.produce(messages)
    live.start()
    accepted = sum(1 for i in range(6_000) if i % 97)
    rows = live.await_rows(accepted)
    bench = rig(features=live.settings.features.model_dump(exclude_unset=True))
    bench.start()
    requester = await bench.requester()
    expected = {}
    for partition in range(PARTITIONS):
        columns = rows.columns(partition)
        for i, symbol in enumerate(columns["symbol"]):
            expected.setdefault(symbol, []).append({name: columns[name][i] for name in columns})
    assert set(expected) == set(symbols)
    blocks = await asyncio.gather(*(compute(requester, LIVE, symbol=s) for s in symbols))
    for symbol, block in zip(symbols, blocks, strict=True):
        wanted = expected[symbol]
        assert list(block.event_time_ns) == [row["event_time"] for row in wanted]
        assert list(block.symbols) == [symbol]
        assert list(block.symbol_index) == [0] * len(wanted)
        values = np.array(block.values).reshape(len(block.names), len(wanted))
        for name, column in zip(block.names, values, strict=True):
            missing = np.isnan(column)
            bits = np.where(missing, np.iinfo(np.int64).min, column.view(np.int64)).tolist()
            assert bits == [row[name] for row in wanted], (symbol, name)

    # A part of it is exactly that part: what is before it is computed all the same.
    whole, name = blocks[0], LIVE[4]
    times = list(whole.event_time_ns)
    start, end = times[200], times[300]
    part = await compute(
        requester, LIVE, symbol="S0", range=TimeRange(start_ns=start, end_ns=end), last=30
    )
    assert list(part.event_time_ns) == times[270:300]
    column = list(whole.names).index(name)
    assert (
        list(part.values)[column * 30 : (column + 1) * 30]
        == list(whole.values)[column * len(times) + 270 : column * len(times) + 300]
    )
    newest = await compute(requester, ["rsi_14"], symbol="S0", last=1)
    assert list(newest.event_time_ns) == times[-1:]
    assert list(newest.values) == [list(whole.values)[(column + 1) * len(times) - 1]]

    # A producer with a partitioner of its own has its symbols found as well.
    elsewhere = (partition_for("STRAY", PARTITIONS) + 1) % PARTITIONS
    live._producer.produce(
        live.source, encode_batch(["STRAY"] * 20, [NOW + i for i in range(20)], [1.0] * 20),
        "STRAY", elsewhere,
    )  # fmt: skip
    live._producer.flush()
    stray = await compute(requester, ["sma_20"], symbol="STRAY", last=1)
    assert list(stray.values) == [1.0]

    for asked, code, says in [
        ({"symbol": "UNKNOWN"}, Code.NOT_FOUND, "UNKNOWN"),
        ({"symbol": "STRAY", "features": ["sma_50"]}, Code.FAILED_PRECONDITION, "needs 50 rows"),
        ({"symbol": "S0", "features": ["atr_14"]}, Code.INVALID_ARGUMENT, "high and low"),
        ({"symbol": "S0", "features": ["nonsense_3"]}, Code.INVALID_ARGUMENT, "sma[_window]"),
    ]:
        with pytest.raises(RequestFailedError) as failure:
            await compute(requester, asked.pop("features", ["sma_20"]), **asked)
        assert failure.value.code == code
        assert says in str(failure.value)
        assert failure.value.field
    await requester.close()
    assert bench.roles[0].stop() == 0


async def test_more_ticks_than_may_be_held_or_rows_than_fit_are_refused(rig, features):
    source = features()
    count = 40_000
    times = [NOW + i for i in range(count)]
    for start in range(0, count, 10_000):
        part = times[start : start + 10_000]
        source.produce([("BIG", encode_batch(["BIG"] * len(part), part, [2.0] * len(part)))])
    bench = rig(
        features=source.settings.features.model_dump(exclude_unset=True),
        compute={"max_log_ticks": 35_000},
    )
    bench.start()
    requester = await bench.requester()
    with pytest.raises(RequestFailedError, match="at most 35000 ticks of BIG") as failure:
        await compute(requester, ["sma_20"], symbol="BIG", last=1)
    assert (failure.value.code, failure.value.field) == (Code.RESOURCE_EXHAUSTED, "range")
    within = TimeRange(end_ns=times[35_000])
    with pytest.raises(RequestFailedError, match="set last to at most") as failure:
        await compute(requester, ["sma_20", "macd"], symbol="BIG", range=within)
    assert (failure.value.code, failure.value.field) == (Code.RESOURCE_EXHAUSTED, "last")
    block = await compute(requester, ["sma_20"], symbol="BIG", range=within, last=5)
    assert list(block.event_time_ns) == times[34_995:35_000]
    await requester.close()


async def test_requests_of_a_killed_worker_are_answered_by_another_or_fail_in_time(rig):
    bench = rig()
    first, second = bench.start(), bench.start()
    requester = await bench.requester()
    rows = rows_of(60)

    async def ask(i: int) -> bool:
        block = await compute(requester, [f"sma_{2 + i % 40}"], rows)
        return len(block.prices) == 60

    assert all(await asyncio.gather(*(ask(i) for i in range(40))))
    asked = [asyncio.create_task(ask(i)) for i in range(100)]
    await asyncio.sleep(0)
    second.kill()
    for i in range(50):
        asked.append(asyncio.create_task(ask(i)))
        await asyncio.sleep(0.01)
    # The group learns that one is dead only after these were asked.
    assert all(await asyncio.gather(*asked))

    first.kill()
    asked = [asyncio.create_task(ask(i)) for i in range(20)]
    for each in await asyncio.gather(*asked, return_exceptions=True):
        assert isinstance(each, RequestFailedError)
        assert each.code == Code.UNAVAILABLE
        assert "none is running" in str(each)

    # A new process takes the place of a dead one, and what nobody waits for is passed over.
    await asyncio.to_thread(bench.start)
    assert all(await asyncio.gather(*(ask(i) for i in range(20))))
    await requester.close()
