"""Readers that are slower than the market, and those beside them."""

import asyncio
import contextlib
from collections import Counter

import pytest

from grpc_bridge.fanout.errors import SlowReaderError
from mystocks.v1.market_pb2 import FeatureBlock, ResumeToken
from mystocks.v1.realtime_pb2 import SLOW_READER_POLICY_LATEST, SubscribeFeaturesResponse
from tests.grpc_bridge.fanout.rig import (
    SYMBOLS,
    FeaturesTopic,
    Seen,
    check_values,
    collect,
    row_numbers,
    running,
)

pytestmark = pytest.mark.kafka
_QUEUE = 64 * 1024


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> FeaturesTopic:
    return FeaturesTopic(kafka_bootstrap, unique)


async def _read_on(subscription):
    async for _ in subscription:
        pass


@pytest.mark.asyncio
async def test_a_reader_behind_by_more_than_its_queue_ends_and_goes_on_by_its_token(topic):
    async with running(topic.hub(queue_bytes=_QUEUE, store_bytes=30_000)) as hub:
        request, seen = topic.request(), Seen()
        stands = asyncio.Event()
        quick = asyncio.create_task(collect(hub, request, 20_010, stands=stands))
        async with hub.subscribe(request.selection, request) as slow:
            seen.add(SubscribeFeaturesResponse.FromString(await anext(slow)))
            await stands.wait()
            topic.write(0, 10)
            seen.add(SubscribeFeaturesResponse.FromString(await anext(slow)))
            most = 0
            for _ in range(100):
                topic.write(0, 100, flush=False)
                topic.write(1, 100)
                # What is read together is published together, so the bound holds to one round.
                await hub.caught_up(topic.set)
                most = max(most, slow.queued_bytes)
            with pytest.raises(SlowReaderError, match="QUEUE_BYTES") as refused:
                await _read_on(slow)
            assert slow.queued_bytes == 0
        assert 0 < most <= _QUEUE + 20_000
        assert (await quick).rows == topic.everything()
        assert len(seen) == 10
        assert refused.value.resume == seen.token.SerializeToString()
        token = ResumeToken.FromString(refused.value.resume)
        await collect(hub, topic.request(resume=token), topic.everything().total(), seen=seen)
        assert seen.rows == topic.everything()


@pytest.mark.asyncio
async def test_responses_that_wait_are_joined_and_shared(topic):
    async with running(topic.hub(linger_ms=0)) as hub:
        request = topic.request()
        async with (
            hub.subscribe(request.selection, request) as one,
            hub.subscribe(request.selection, request) as other,
        ):
            for subscription in (one, other):
                await subscription.take()
                # Into the channel, which both share from now on.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(subscription.take(), 0.05)
            for _ in range(20):
                topic.write(0, 3)
                await hub.caught_up(topic.set)
            assert one.queued_bytes == other.queued_bytes > 0
            assert one.lag_rows == other.lag_rows == 60
            first, second = await anext(one), await anext(other)
            assert first is second
            assert one.lag_rows == one.queued_bytes == 0
            seen = Seen()
            seen.add(SubscribeFeaturesResponse.FromString(first))
            assert seen.in_order[0] == list(range(60))
            assert seen.token.next[0].row == 60


@pytest.mark.asyncio
async def test_the_newest_row_of_each_symbol_is_kept_while_the_reader_is_busy(topic):
    async with running(topic.hub(linger_ms=0, queue_bytes=_QUEUE)) as hub:
        request = topic.request(policy=SLOW_READER_POLICY_LATEST, names=["rsi_14"])
        async with hub.subscribe(request.selection, request) as subscription:
            await subscription.take()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(subscription.take(), 0.05)
            topic.write(0, 7)
            await hub.caught_up(topic.set)
            prompt = await subscription.take()
            assert prompt.rows == 7
            for _ in range(300):
                topic.write(0, 50, flush=False)
                topic.write(1, 49, flush=False)
            topic.producer.flush()
            await hub.caught_up(topic.set)
            assert subscription.queued_bytes < 10 * _QUEUE
            newest = await subscription.take()
            topic.write(0, 4)
            after = await subscription.take()
    blocks = [FeatureBlock.FromString(block.data) for block in newest.blocks]
    assert newest.rows == 2 * len(SYMBOLS)
    for block in blocks:
        check_values(block)
        assert list(block.names) == ["rsi_14"]
        end = {0: 7 + 300 * 50, 1: 300 * 49}[block.first_row.partition]
        assert row_numbers(block) == list(range(end - 3, end))
    assert [n.row for n in ResumeToken.FromString(newest.token).next] == [15_007, 14_700]
    (last,) = after.blocks
    assert row_numbers(FeatureBlock.FromString(last.data)) == list(range(15_007, 15_011))


@pytest.mark.asyncio
async def test_the_newest_rows_of_very_many_symbols_come_in_responses_of_usual_size(topic):
    count = 12_000
    symbols = tuple(f"SYMBOL{i}" for i in range(count))
    async with running(topic.hub(linger_ms=0)) as hub:
        request = topic.request(policy=SLOW_READER_POLICY_LATEST)
        async with hub.subscribe(request.selection, request) as subscription:
            begin = (await subscription.take()).token
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(subscription.take(), 0.05)
            for _ in range(3):
                for partition in (0, 1):
                    topic.write(partition, count, symbols=symbols)
                    await hub.caught_up(topic.set)
            seen = Counter()
            while sum(seen.values()) < 2 * count:
                waiting = subscription.lag_rows
                delivery = await subscription.take()
                assert subscription.lag_rows <= max(0, waiting - delivery.rows)
                assert len(delivery.response()) < 600 * 1024
                for block in delivery.blocks:
                    parsed = FeatureBlock.FromString(block.data)
                    check_values(parsed, symbols)
                    partition = parsed.first_row.partition
                    seen.update((partition, row) for row in row_numbers(parsed))
                if sum(seen.values()) < 2 * count:
                    assert delivery.token == begin
    assert seen == Counter((p, r) for p in (0, 1) for r in range(2 * count, 3 * count))
    assert [n.row for n in ResumeToken.FromString(delivery.token).next] == [3 * count] * 2


@pytest.mark.asyncio
async def test_readers_that_go_leave_nothing_behind(topic):
    async with running(topic.hub()) as hub:
        feed = await hub._feed(topic.set)

        async def vanish(symbols):
            request = topic.request(symbols=symbols, earliest=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(collect(hub, request, 1000), 0.1)

        await asyncio.gather(*(vanish(s) for s in ([], [], ["IBM"], ["IBM", "AAPL"])))
        async with hub.listen(topic.set, {"IBM"}) as listener:
            listener.add_symbols({"MSFT"})
        assert not feed._shared
        assert not feed._everything
        assert not feed._by_symbol
        assert not feed._waiting
