"""`ReplayMarketData` of bars: those of live and of the command line, bit for bit."""

import asyncio
import contextlib
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bridge.replay_records import encode_bar_block
from mystocks import AsyncClient, Client
from mystocks.v1 import market_pb2, realtime_pb2
from schemas.bars import FLOAT_COLUMNS, NO_TRADES, BarColumns, bars_schema, decode_bars
from schemas.topics import bars_topic, replay_topic, topic_specs
from streams.kafka.admin import admin_client, ensure_topics
from tests.grpc_bridge.rig import bridge_settings, connected, details, served
from tests.roles.replay_rig import ReplayRole, replay
from tests.roles.rig import committed_reader
from tests.roles.test_bars import BarsRig, newest, tick

SECOND = 10**9
START = 1_700_000_040 * SECOND
END = START + 3600 * SECOND
PATIENCE_S = 60.0


@given(st.integers(1, 300), st.integers(1, 200), st.integers(0, 1000))
def test_a_block_is_that_of_the_generated_class(rows, count, seed):
    rng = np.random.default_rng(seed)
    symbols = [f"S{i}" for i in range(count)]
    bars = BarColumns(
        rng.integers(0, count, rows).astype(np.int32),
        rng.integers(-(2**62), 2**62, rows),
        rng.integers(-(2**62), 2**62, rows),
        *(rng.normal(size=rows) for _ in FLOAT_COLUMNS),
        rng.integers(NO_TRADES, 2**62, rows),
        rng.integers(0, 2**31 - 1, rows).astype(np.int32),
    )
    # A slice of a table is not contiguous, as rows of the kernel's output are not.
    bars = replace(bars, open=np.stack([bars.open, bars.close], axis=1)[:, 0])
    expected = market_pb2.BarBlock(
        interval="1m",
        set_hash="abc",
        symbols=symbols,
        symbol_index=bars.code.tolist(),
        start_time_ns=bars.start_time.tolist(),
        end_time_ns=bars.end_time.tolist(),
        **{name: getattr(bars, name).tolist() for name in FLOAT_COLUMNS},
        trades=bars.trades.tolist(),
        revision=bars.revision.tolist(),
    )
    encoded = encode_bar_block("1m", "abc", symbols, bars)
    assert market_pb2.BarBlock.FromString(encoded) == expected


@pytest.fixture(scope="module")
def past(kafka_bootstrap, redis_url, tmp_path_factory):
    """What live made of an hour of ticks, and a role that replays."""
    name = f"t{uuid.uuid4().hex[:12]}"
    data_dir = tmp_path_factory.mktemp("past")
    rig = BarsRig(name, kafka_bootstrap, data_dir, idle_timeout_s=1.0)
    rng = np.random.default_rng(2)
    symbols = [f"{name}{i}" for i in range(9)]
    chosen = rng.integers(0, 9, 3000).tolist()
    rig.start()
    rig.produce(
        tick(symbols[code], START + i * SECOND, 50 + float(rng.normal()))
        for i, code in enumerate(chosen)
    )
    count = len({(code, i // 30) for i, code in enumerate(chosen)})
    live = newest(rig.bars(lambda found: len(found[found["interval"] == "30s"]) >= count))
    assert rig.stop() == 0
    settings = bridge_settings(name, kafka_bootstrap, redis_url, data_dir)
    settings = settings.model_copy(update={"environment": name, "bars": rig.settings.bars})
    ensure_topics(settings, topic_specs(settings, frozenset({"jobs"})))
    role = ReplayRole(settings)
    yield settings, symbols, live[live["interval"] == "30s"]
    role.stop()


def bits(symbols: list[str], bars: object, code: str, start: str, end: str) -> list[tuple]:
    """Bars in an order of their own; floats as bits, so that equal is equal."""
    floats = (np.array(getattr(bars, name)).view(np.int64).tolist() for name in FLOAT_COLUMNS)
    others = (list(getattr(bars, name)) for name in (start, end, "trades", "revision"))
    names = [symbols[i] for i in getattr(bars, code)]
    return list(zip(names, *others, *floats, strict=True))


def in_topic(kafka: str, topic: str) -> list[tuple]:
    """Returns the bars that a replay wrote, sorted."""
    reader, found, quiet = committed_reader(kafka, topic), [], 0
    while quiet < 4:
        messages = [m for m in reader.consume(500, 0.3) if m.error() is None]
        quiet = 0 if messages else quiet + 1
        for message in messages:
            symbols, bars = decode_bars(message.value())
            found += bits(symbols, bars, "code", "start_time", "end_time")
    reader.close()
    return sorted(found)


async def collect(stub, start_ns: int, end_ns: int, **fields: object) -> tuple[list, int]:
    """Returns the bars of a whole replay, sorted, and how many the last progress told of."""
    request = realtime_pb2.ReplayMarketDataRequest(
        range=market_pb2.TimeRange(start_ns=start_ns, end_ns=end_ns), **fields
    )
    found, told = [], 0
    async with asyncio.timeout(PATIENCE_S):
        async for response in stub.ReplayMarketData(request):
            if response.WhichOneof("kind") == "progress":
                told = response.progress.ticks
                continue
            block = response.bars
            assert (block.interval, bool(block.set_hash)) == (fields["bars"], True)
            found += bits(
                list(block.symbols), block, "symbol_index", "start_time_ns", "end_time_ns"
            )
    return sorted(found), told


@pytest.mark.kafka
@pytest.mark.asyncio
@pytest.mark.timeout(240)
async def test_bars_of_a_range_are_those_of_live_and_of_the_command_line(past, kafka_bootstrap):
    settings, symbols, live = past
    async with served(settings) as (address, _), connected(address) as stub:
        every, told = await collect(stub, START, END, bars="30s")
        assert told == len(every) == len(live)
        columns = ["symbol", "start", "end", "trades", "open", "high", "low", "close", "volume"]
        wanted = sorted(live[columns].itertuples(index=False, name=None))
        floats = [np.array(bar[5:10], np.int64).view(np.float64).tolist() for bar in every]
        assert [(*bar[:4], *f) for bar, f in zip(every, floats, strict=True)] == wanted

        run = f"{symbols[0]}cli"
        job = await asyncio.to_thread(replay, settings, run, start_ns=START, end_ns=END, bars="30s")
        assert every == in_topic(kafka_bootstrap, job.output)

        low, high = START + 600 * SECOND, START + 1800 * SECOND
        inside = [bar for bar in every if bar[0] in symbols[:3] and low <= bar[2] < high]
        run = f"{symbols[0]}kept"
        chosen = {"symbols": symbols[:3], "bars": "30s", "run": run}
        for speed in (1200.0, 0.0):
            some, _ = await collect(stub, low, high, speed=speed, **chosen)
            assert some == inside
        # An interval that live does not have, and no other test.
        others, _ = await collect(stub, START, END, bars="25s")
        assert len(others) > len(every)
    topics = admin_client(settings).list_topics(timeout=10).topics
    assert replay_topic(bars_topic("30s"), run) in topics
    assert not [name for name in topics if name.startswith("market.bars.25s.replay.")]


@pytest.mark.kafka
@pytest.mark.asyncio
@pytest.mark.timeout(120)
@pytest.mark.parametrize("fields", [{"bars": "7m"}, {"bars": "soon"}, {"indicators": ["sma_3"]}])
async def test_other_intervals_and_bars_with_features_are_refused(past, fields):
    settings, _, _ = past
    request = realtime_pb2.ReplayMarketDataRequest(
        range=market_pb2.TimeRange(start_ns=START), **{"bars": "30s", **fields}
    )
    async with served(settings) as (address, _), connected(address) as stub:
        call = stub.ReplayMarketData(request)
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(PATIENCE_S):
                while await call.read() is not grpc.aio.EOF:
                    pass
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT, await call.details()
        assert (await details(call))["BadRequest"].field_violations[0].field == "bars"


@pytest.mark.kafka
@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_the_client_replays_bars_in_both_forms(past):
    settings, symbols, live = past
    start, end = (datetime.fromtimestamp(ns // SECOND, UTC) for ns in (START, END))
    chosen = live[live["symbol"] == symbols[1]].sort_values("end")
    async with served(settings) as (address, _):
        async with (
            AsyncClient(address) as client,
            client.replay_bars("30s", start, end, symbols[1]) as replayed,
        ):
            rows = [row async for row in replayed]
            assert replayed.progress.rows == len(rows)
        assert [row.end_time_ns for row in rows] == chosen["end"].tolist()
        assert [row.close for row in rows] == chosen["close"].tolist()
        assert {(row.symbol, row.end_time_ns - row.start_time_ns) for row in rows} == {
            (symbols[1], 30 * SECOND)
        }

        def in_a_thread() -> pa.Table:
            with Client(address) as client:
                replayed = client.replay_bars("30s", start, end, symbols[1])
                return pa.concat_tables(frame.to_arrow() for frame in replayed.blocks())

        table = await asyncio.to_thread(in_a_thread)
    assert [(f.name, f.type) for f in table.schema] == [(f.name, f.type) for f in bars_schema()]
    assert table["close"].to_pylist() == chosen["close"].tolist()
