"""The latest rows, from the Redis table."""

import asyncio
import math

import grpc
import pytest

from mystocks.v1.realtime_pb2 import (
    GetFeaturesRequest,
    GetStreamStatsRequest,
    SubscribeFeaturesRequest,
)
from tests.grpc_bridge.rig import TIME, MarketClient, connected, details, served, tick

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]


async def filled(stub, unique):
    """Three symbols with one, two and three ticks; returns when the table has them."""
    symbols = [f"{unique}.{i}" for i in range(3)]
    client = MarketClient(stub)
    await client.send(1, *[tick(s, i) for n, s in enumerate(symbols) for i in range(n + 1)])
    await client.finish()
    async with asyncio.timeout(20):
        while True:
            answer = await stub.GetFeatures(GetFeaturesRequest(symbols=symbols))
            if not answer.unknown_symbols and answer.features.event_time_ns[2] == TIME + 2:
                return symbols, client
            await asyncio.sleep(0.02)


async def test_rows_of_known_symbols_and_the_unknown_ones_by_name(live, unique):
    async with connected(live.address) as stub:
        symbols, client = await filled(stub, unique)
        nobody = f"{unique}.nobody"
        answer = await stub.GetFeatures(GetFeaturesRequest(symbols=[nobody, *symbols, symbols[0]]))
        block = answer.features
        assert list(answer.unknown_symbols) == [nobody]
        assert [block.symbols[i] for i in block.symbol_index] == symbols
        assert list(block.event_time_ns) == [TIME, TIME + 1, TIME + 2]
        assert list(block.prices) == [10.0, 11.0, 12.0]
        assert list(block.names) == ["sma_2", "ema_3"]
        sma, ema = block.values[:3], block.values[3:]
        assert math.isnan(sma[0])
        assert sma[1:] == [10.5, 11.5]
        assert [math.isnan(value) for value in ema] == [True, True, False]
        one = await stub.GetFeatures(GetFeaturesRequest(symbols=symbols[2:], names=["ema_3"]))
        assert list(one.features.names) == ["ema_3"]
        assert list(one.features.values) == [11.0]
        place = (one.features.first_row.partition, one.features.first_row.row)
        assert client.rows[place] == (symbols[2], TIME + 2)
        assert list(one.features.row_offset) == [0]


async def test_without_symbols_all_rows_come(live, unique):
    async with connected(live.address) as stub:
        symbols, _ = await filled(stub, unique)
        answer = await stub.GetFeatures(GetFeaturesRequest())
    found = [answer.features.symbols[i] for i in answer.features.symbol_index]
    assert set(symbols) <= set(found)
    assert len(found) == len(set(found)) == len(answer.features.prices)


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        ({"symbols": ["a b"]}, "INVALID_ARGUMENT", "character outside"),
        ({"names": ["nope"]}, "INVALID_ARGUMENT", "there are sma_2, ema_3"),
        ({"feature_set": "nope"}, "NOT_FOUND", "no topic features.nope"),
        ({"feature_set": "a b"}, "INVALID_ARGUMENT", "feature_set"),
    ],
)
async def test_bad_requests_say_what_to_correct(live, unique, request_, code, text):
    async with connected(live.address) as stub:
        await filled(stub, unique)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetFeatures(GetFeaturesRequest(**request_))
    assert caught.value.code().name == code
    assert text in caught.value.details()


async def test_too_many_rows_are_refused(own, monkeypatch, redis_url):
    import redis

    settings = own()
    table = f"features:{settings.features.name}"
    row = '{"symbol":"S","event_time_ns":1,"price":1.0,"partition":0,"row":0}'
    client = redis.Redis.from_url(redis_url)
    client.hset(table, mapping={f"S{i}": row for i in range(30)})
    monkeypatch.setattr("grpc_bridge.get_features._MAX_ROWS", 20)
    try:
        async with served(settings) as (address, _), connected(address) as stub:
            with pytest.raises(grpc.aio.AioRpcError, match="name the symbols") as caught:
                await stub.GetFeatures(GetFeaturesRequest())
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    finally:
        client.delete(table)


async def test_an_answer_too_large_for_a_message_is_refused_with_what_to_do(own, redis_url):
    import orjson
    import redis

    settings = own()
    table, names = f"features:{settings.features.name}", [f"feature_{i}" for i in range(60)]
    row = {"event_time_ns": 1, "price": 1.0, "partition": 0, "row": 0} | dict.fromkeys(names, 0.5)
    symbols = [f"S{i}" for i in range(9000)]
    client = redis.Redis.from_url(redis_url)
    client.hset(table, mapping={s: orjson.dumps({"symbol": s} | row) for s in symbols})
    try:
        async with served(settings) as (address, _), connected(address) as stub:
            for asked in (symbols, []):
                with pytest.raises(grpc.aio.AioRpcError, match="name fewer symbols") as caught:
                    await stub.GetFeatures(GetFeaturesRequest(symbols=asked))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            request = GetFeaturesRequest(symbols=symbols, names=names[:20])
            answer = await stub.GetFeatures(request)
            assert len(answer.features.prices) == 9000
            assert len(answer.features.values) == 9000 * 20
        raised = settings.model_copy(
            update={"grpc": settings.grpc.model_copy(update={"max_message_bytes": 8 * 1024**2})}
        )
        async with (
            served(raised) as (address, _),
            connected(address, max_receive_message_length=-1) as stub,
        ):
            answer = await stub.GetFeatures(GetFeaturesRequest(symbols=symbols))
            assert len(answer.features.values) == 9000 * 60
    finally:
        client.delete(table)


TOO_MUCH = {
    "symbols": ({"symbols": ["A"] * 20_001}, "symbols", "at most 20000 symbols"),
    "names": ({"names": [f"n{i}" for i in range(1001)]}, "names", "at most 1000 names"),
    "a long name": ({"names": ["n" * 129]}, "names[0]", "1 to 128 characters"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
async def test_every_call_bounds_what_may_be_asked_for(live, case):
    asked, field, text = TOO_MUCH[case]
    async with connected(live.address) as stub:
        subscription = stub.SubscribeFeatures(SubscribeFeaturesRequest(selection=asked))
        stream = MarketClient(stub)
        await stream.select(**asked)
        for call, prefix in (
            (stub.GetFeatures(GetFeaturesRequest(**asked)), ""),
            (subscription, "selection."),
            (stream.call, "selection."),
        ):
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in await call.details()
            (violation,) = (await details(call))["BadRequest"].field_violations
            assert violation.field == prefix + field


async def test_without_redis_the_answer_says_so(own):
    settings = own()
    nowhere = settings.redis.model_validate({"url": "redis://127.0.0.1:1/0"})
    none = settings.redis.model_validate({})
    for section, code, text in (
        (nowhere, grpc.StatusCode.UNAVAILABLE, "was not there"),
        (none, grpc.StatusCode.FAILED_PRECONDITION, "set MYSTOCKS_REDIS__URL"),
    ):
        changed = settings.model_copy(update={"redis": section})
        async with served(changed) as (address, _), connected(address) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetFeatures(GetFeaturesRequest(symbols=["A"]))
            assert caught.value.code() is code
            assert text in caught.value.details()


async def test_stats_show_streams_and_progress(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        bad = [tick(unique, i, price=-1.0) for i in (1, 2)]
        await client.send(1, tick(unique), *bad)
        await client.send(2, *bad)
        await client.until(lambda: len(client.rows) == 1 and len(client.refused) == 4)
        stats = await stub.GetStreamStats(GetStreamStatsRequest())
        (mine,) = [s for s in stats.streams if (s.ticks_received, s.rows_sent) == (5, 1)]
        assert (mine.method, mine.ticks_acknowledged) == ("StreamMarketData", 1)
        assert (mine.ticks_refused, mine.errors) == (4, 2)
        assert mine.peer.startswith("ipv4:127.0.0.1")
        assert stats.max_streams == 1000
        (partition, row), _ = next(iter(client.rows.items()))
        _, _, _, offset = client.acknowledged[0]
        there = stats.partitions[partition]
        assert there.partition == partition
        assert there.source_end_offset >= there.group_offset > offset
        assert there.lag == there.source_end_offset - there.group_offset
        assert there.next_row > row
        await client.finish()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetStreamStats(GetStreamStatsRequest(feature_set="nope"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetStreamStats(GetStreamStatsRequest(feature_set="a b"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "feature_set" in caught.value.details()
