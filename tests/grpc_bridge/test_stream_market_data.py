"""Ticks in, acknowledgements and rows out, on one stream."""

import asyncio
import signal

import grpc
import pytest

from mystocks.v1 import realtime_pb2
from tests.grpc_bridge.rig import (
    TIME,
    MarketClient,
    block_rows,
    connected,
    details,
    log_ticks,
    tick,
)
from tests.suspend import suspend

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]


async def test_every_tick_is_acknowledged_where_it_is_and_comes_back_once(live, unique):
    symbols = [f"{unique}.{i}" for i in range(7)]
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        sent = {}
        for i in range(60):
            ticks = [tick(symbols[(i + j) % 7], 1000 * i + j) for j in range(1 + (i % 3) * 20)]
            sent[i + 1] = ticks
            await client.send(i + 1, *ticks)
        await client.finish()
    log = await asyncio.to_thread(log_ticks, live.settings)
    found = {number: [] for number in sent}
    for number, accepted, partition, offset in client.acknowledged:
        own = {t.SerializeToString() for t in sent[number]}
        there = [t for t in log[partition, offset] if t.SerializeToString() in own]
        assert len(there) == accepted
        found[number] += there
    for number, ticks in sent.items():
        for symbol in symbols:
            assert [t for t in found[number] if t.symbol == symbol] == [
                t for t in ticks if t.symbol == symbol
            ]
    all_sent = sorted((t.symbol, t.event_time_ns) for ticks in sent.values() for t in ticks)
    assert sorted(client.rows.values()) == all_sent
    assert not client.twice
    assert not client.refused


async def test_a_symbol_s_ticks_keep_their_order(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        for i in range(500):
            await client.send(i + 1, tick(unique, i))
        await client.finish()
    times = [time for _, (_, time) in sorted(client.rows.items())]
    assert times == [TIME + i for i in range(500)]


async def test_rows_come_while_the_stream_is_open_and_after_its_acknowledgement(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        for i in range(3):
            await client.send(i + 1, tick(unique, i))
            await client.until(lambda i=i: len(client.rows) == i + 1)
        assert client.order[:2] == ["ack", "rows"]
        assert client.names == {("sma_2", "ema_3")}
        client.call.cancel()


async def test_rows_of_others_and_rows_from_before_do_not_come(live, unique):
    mine, other = f"{unique}.mine", f"{unique}.other"
    async with connected(live.address) as stub:
        before = MarketClient(stub)
        await before.send(1, *[tick(s, i) for i in range(5) for s in (mine, other)])
        await before.finish()
        client, stranger = MarketClient(stub), MarketClient(stub)
        await client.send(1, tick(mine, 100))
        await stranger.send(1, tick(other, 100), tick(other, 101))
        await stranger.finish()
        await client.finish()
    assert list(client.rows.values()) == [(mine, TIME + 100)]
    assert set(client.rows).isdisjoint(before.rows)


async def test_bad_ticks_are_refused_by_name_and_the_stream_stays_open(live, unique):
    good = {"symbol": unique, "event_time_ns": TIME, "price": 1.0}
    bad = [
        ("symbol", ""),
        ("symbol", "a b"),
        ("symbol", "X" * 33),
        ("event_time_ns", 0),
        ("event_time_ns", 1_700_000_000),
        ("price", 0.0),
        ("price", float("nan")),
        ("price", float("inf")),
        ("size", -1.0),
        ("bid", -1.0),
        ("ask", float("inf")),
        ("sequence", -1),
        ("volume", -0.5),
        ("amount", float("-inf")),
    ]
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        for number, (field, value) in enumerate(bad, 1):
            await client.send(number, tick(**(good | {field: value})))
        await client.send(100, *[tick(**(good | {f: v})) for f, v in bad], tick(unique, 1))
        await client.send(101, batch=True)
        await client.finish()
    single = {number: reason for number, _, reason in client.refused if number < 100}
    for number, (field, _) in enumerate(bad, 1):
        assert field in single[number].partition(",")[0]
    assert [row for number, row, _ in client.refused if number == 100] == list(range(len(bad)))
    assert [reason for number, _, reason in client.refused if number == 101] == [
        "batch has no ticks, expected at least 1"
    ]
    assert [(n, a) for n, a, _, _ in client.acknowledged] == [(100, 1)]
    assert list(client.rows.values()) == [(unique, TIME + 1)]


async def test_a_selection_takes_the_place_of_the_rows_of_symbols_sent(live, unique):
    mine, other = f"{unique}.mine", f"{unique}.other"
    async with connected(live.address) as stub:
        client, sender = MarketClient(stub), MarketClient(stub)
        await client.select(symbols=[other], names=["ema_3"])
        await client.until(lambda: client.token is not None)
        await client.send(1, tick(mine, 1))
        await client.until(lambda: client.accepted == 1)
        await sender.send(1, tick(other, 1))
        await client.until(lambda: len(client.rows) == 1)
        assert client.names == {("ema_3",)}
        client.token = None
        await client.select(symbols=[mine, other], names=["sma_2", "ema_3"])
        await client.until(lambda: client.token is not None)
        await client.send(2, tick(mine, 2))
        await sender.send(2, tick(other, 2))
        await client.until(lambda: len(client.rows) == 3)
        # Without our side it stays open for rows.
        await client.call.done_writing()
        await sender.send(3, tick(other, 3))
        await client.until(lambda: len(client.rows) == 4)
        assert client.names == {("ema_3",), ("sma_2", "ema_3")}
        client.call.cancel()
        await sender.finish()
    assert client.row_symbols == {mine: 1, other: 3}
    assert not client.twice


async def test_a_stream_that_wants_no_rows_gets_acknowledgements_alone(live, unique):
    async with connected(live.address) as stub:
        client, other = MarketClient(stub), MarketClient(stub)
        await client.no_rows()
        for i in range(20):
            await client.send(i + 1, tick(unique, i))
        await client.until(lambda: client.accepted == 20)
        await other.send(1, tick(unique, 20))
        await other.finish()
        # They begin with a block, which may hold rows of the ticks before.
        assert (unique, TIME + 20) in other.rows.values()
        await client.finish(5)
        assert not client.rows
        assert client.token is None
        assert set(client.order) == {"ack"}


async def test_rows_can_be_turned_off_and_a_selection_turns_them_on_again(live, unique):
    async with connected(live.address) as stub:
        client, other = MarketClient(stub), MarketClient(stub)
        await client.send(1, tick(unique, 1))
        await client.until(lambda: len(client.rows) == 1)
        await client.no_rows()
        await client.send(2, tick(unique, 2))
        await client.until(lambda: client.accepted == 2)
        await other.send(1, tick(unique, 3))
        await other.finish()  # so the row of tick 2 is there as well
        client.token = None
        await client.select(symbols=[unique])
        await client.until(lambda: client.token is not None)
        await client.send(3, tick(unique, 4))
        await client.until(lambda: len(client.rows) == 2)
        client.call.cancel()
    assert list(client.rows.values()) == [(unique, TIME + 1), (unique, TIME + 4)]


@pytest.mark.parametrize(
    ("selection", "field"),
    [
        ({"symbols": ["a b"]}, "symbols"),
        ({"names": ["nope"]}, "names"),
        ({"feature_set": "a b"}, "feature_set"),
    ],
)
async def test_a_bad_selection_is_refused_by_field(live, unique, selection, field):
    async with connected(live.address) as stub:
        filled = MarketClient(stub)
        await filled.send(1, tick(unique))
        await filled.finish()  # names are known once there is a row
        client = MarketClient(stub)
        await client.select(**selection)
        assert await client.rest() is grpc.StatusCode.INVALID_ARGUMENT
        assert field in await client.call.details()


async def test_a_refused_selection_says_where_the_rows_before_it_went_on(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        await client.send(1, tick(unique, 1))
        await client.until(lambda: len(client.rows) == 1)
        await client.select(symbols=["a b"])
        assert await client.rest() is grpc.StatusCode.INVALID_ARGUMENT
        resume = (await details(client.call))["StreamInterrupted"].resume
        other = MarketClient(stub)
        await other.send(1, tick(unique, 2))
        await other.finish()
        request = realtime_pb2.SubscribeFeaturesRequest(
            selection={"symbols": [unique]}, resume=resume
        )
        async for response in stub.SubscribeFeatures(request):
            if response.blocks:
                found = [value for block in response.blocks for _, value in block_rows(block)]
                assert found == [(unique, TIME + 2)]
                break


async def test_cut_between_acknowledgement_and_rows_goes_on_by_token(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        sent = [tick(unique, i) for i in range(20)]
        await client.send(0, *sent[:10])
        await client.until(lambda: len(client.rows) == 10)
        # Nobody computes, so what is acknowledged now has no rows.
        suspend(live.features.process.pid)
        try:
            for number, one in enumerate(sent[10:], 1):
                await client.send(number, one)
            await client.until(lambda: client.accepted == 20)
            client.call.cancel()
        finally:
            live.features.process.send_signal(signal.SIGCONT)
        got = dict(client.rows)
        assert len(got) == 10
        request = realtime_pb2.SubscribeFeaturesRequest(
            selection={"symbols": [unique]}, resume=client.token
        )
        async for response in stub.SubscribeFeatures(request):
            for block in response.blocks:
                for identity, value in block_rows(block):
                    assert identity not in got
                    got[identity] = value
            if len(got) == len(sent):
                break
    assert sorted(got.values()) == sorted((t.symbol, t.event_time_ns) for t in sent)


async def test_a_stream_without_ticks_ends_with_its_sender(live):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        await client.finish(5)
    assert client.responses == 0
