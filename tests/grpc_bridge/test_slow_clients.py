"""Clients that do not read what they asked for: by either call, by either policy."""

import asyncio
import contextlib

import grpc
import pytest

from mystocks.v1.realtime_pb2 import (
    SLOW_READER_POLICY_EVERY_ROW,
    SLOW_READER_POLICY_LATEST,
    GetStreamStatsRequest,
)
from tests.grpc_bridge.fanout.rig import SYMBOLS, FeaturesTopic
from tests.grpc_bridge.rig import MarketClient, connected, details, served

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]

_ROUNDS, _ROWS = 120, 150
# gRPC's own buffers hold what a client does not read; small ones make it slow sooner.
_SMALL = {"http2.lookahead_bytes": 16 * 1024, "http2.bdp_probe": 0}


async def opened(stub, topic: FeaturesTopic, method: str, policy: int) -> MarketClient:
    """A client that has received where its rows begin, and reads no more."""
    if method == "SubscribeFeatures":
        client = MarketClient(stub, topic.request(policy=policy))
    else:
        client = MarketClient(stub)
        await client.select(policy=policy)
    await client.until(lambda: client.token is not None)
    return client


async def write_much(stub, topic: FeaturesTopic) -> None:
    """Writes more than all buffers hold, and waits until the bridge has read it."""
    for _ in range(_ROUNDS):
        topic.write(0, _ROWS, flush=False)
        topic.write(1, _ROWS)
        await asyncio.sleep(0.002)
    async with asyncio.timeout(20):
        while True:
            stats = await stub.GetStreamStats(GetStreamStatsRequest())
            if [part.next_row for part in stats.partitions[:2]] == [_ROUNDS * _ROWS] * 2:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
def settings(own):
    return own(queue_bytes=64 * 1024)


@pytest.fixture
def topic(settings, kafka_bootstrap) -> FeaturesTopic:
    return FeaturesTopic(kafka_bootstrap, settings.features.name, create=False)


@contextlib.asynccontextmanager
async def clients(settings):
    """Stubs of a client with little room and of another one, of one bridge."""
    async with (
        served(settings) as (address, _),
        connected(address) as other,
        connected(address, **_SMALL) as stub,
    ):
        yield stub, other


@pytest.mark.parametrize("method", ["SubscribeFeatures", "StreamMarketData"])
async def test_who_wants_every_row_and_is_too_slow_ends_and_goes_on_by_the_token(
    settings, topic, method
):
    async with clients(settings) as (stub, other):
        client = await opened(stub, topic, method, SLOW_READER_POLICY_EVERY_ROW)
        await write_much(other, topic)
        assert await client.rest() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "MYSTOCKS_GRPC__QUEUE_BYTES" in await client.call.details()
        found = await details(client.call)
        assert found["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        assert found["StreamInterrupted"].resume == client.token
        assert len(client.rows) < 2 * _ROUNDS * _ROWS
        rest = MarketClient(other, topic.request(resume=client.token))
        rest.rows = client.rows
        await rest.until(lambda: len(rest.rows) == 2 * _ROUNDS * _ROWS)
        assert not rest.twice


@pytest.mark.parametrize("method", ["SubscribeFeatures", "StreamMarketData"])
async def test_who_wants_the_latest_rows_and_is_slow_gets_the_newest_of_each_symbol(
    settings, topic, method
):
    async with clients(settings) as (stub, other):
        client = await opened(stub, topic, method, SLOW_READER_POLICY_LATEST)
        await write_much(other, topic)
        newest = {
            (partition, row)
            for partition in (0, 1)
            for row in range(_ROUNDS * _ROWS - len(SYMBOLS), _ROUNDS * _ROWS)
        }
        await client.until(lambda: newest <= client.rows.keys())
        assert not client.twice
        assert len(client.rows) < 2 * _ROUNDS * _ROWS
        assert [place.row for place in client.token.next[:2]] == [_ROUNDS * _ROWS] * 2
