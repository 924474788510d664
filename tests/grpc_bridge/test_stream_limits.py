"""Bounds of streams: how many, how silent, how far ahead, and what a vanished client leaves."""

import asyncio
import contextlib

import grpc
import pytest

from mystocks.v1 import realtime_pb2
from tests.grpc_bridge.fanout.rig import FeaturesTopic
from tests.grpc_bridge.rig import (
    MarketClient,
    connected,
    details,
    log_ticks,
    served,
    settled,
    tick,
)

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]


def active(metrics):
    return metrics.registry.get_sample_value("realtime_streams_active")


async def until(condition, timeout_s=15.0):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_stream_after_the_last_one_is_told_to_come_back(own):
    async with served(own(max_streams=2)) as (address, metrics), connected(address) as stub:
        clients = [MarketClient(stub) for _ in range(2)]
        for client in clients:
            await client.send(1, tick("A"))
            await client.until(lambda client=client: client.accepted == 1)
        refused = MarketClient(stub)
        assert await refused.rest() is grpc.StatusCode.RESOURCE_EXHAUSTED
        found = await details(refused.call)
        assert found["RetryInfo"].retry_delay.ToMilliseconds() > 0
        subscription = stub.SubscribeFeatures(realtime_pb2.SubscribeFeaturesRequest())
        with pytest.raises(grpc.aio.AioRpcError, match="at most 2 open streams"):
            await subscription.read()
        clients[0].call.cancel()
        await until(lambda: active(metrics) == 1)
        again = MarketClient(stub)
        await again.send(1, tick("A"))
        await again.until(lambda: again.accepted == 1)


async def test_a_small_limit_for_requests_lets_the_bridge_answer(own, kafka_bootstrap, unique):
    count = 20_000
    settings = own(max_message_bytes=64 * 1024)
    topic = FeaturesTopic(kafka_bootstrap, unique, create=False)
    topic.write(0, count)
    async with served(settings) as (address, _), connected(address) as stub:
        rows, largest = 0, 0
        async with asyncio.timeout(30):
            async for response in stub.SubscribeFeatures(topic.request(earliest=True)):
                rows += sum(len(block.prices) for block in response.blocks)
                largest = max(largest, response.ByteSize())
                if rows == count:
                    break
        assert largest > 64 * 1024
        client = MarketClient(stub)
        await client.send(1, *[tick("A", i) for i in range(4000)])
        assert await client.rest() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in await client.call.details()


async def test_symbols_whose_rows_come_back_are_bounded(own, monkeypatch):
    monkeypatch.setattr("grpc_bridge.market_stream.MAX_SYMBOLS", 5)
    async with served(own()) as (address, _), connected(address) as stub:
        client = MarketClient(stub)
        for number in range(1, 21):
            await client.send(number, tick(f"S{number % 5}"))
        await client.until(lambda: client.accepted == 20)
        await client.send(21, tick("S0"), tick("another"))
        assert await client.rest() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most 5 symbols" in await client.call.details()
        assert client.accepted == 22
        found = (await details(client.call))["StreamInterrupted"]
        assert not found.unacknowledged
        assert found.resume == client.token
        chosen = MarketClient(stub)
        await chosen.select(symbols=["S0"])
        await chosen.send(1, *[tick(f"S{i}") for i in range(50)])
        await chosen.until(lambda: chosen.accepted == 50)


async def test_a_silent_stream_is_ended_and_a_busy_one_is_not(own):
    async with served(own(idle_timeout_s=1.5)) as (address, metrics), connected(address) as stub:
        silent, busy = MarketClient(stub), MarketClient(stub)
        await silent.send(7, tick("A"))
        ending = asyncio.create_task(silent.rest())
        number = 0
        while not ending.done():
            number += 1
            await busy.send(number, tick("B", number))
            await asyncio.sleep(0.05)
        assert await ending is grpc.StatusCode.UNAVAILABLE
        assert silent.accepted == 1
        found = await details(silent.call)
        assert list(found["StreamInterrupted"].unacknowledged) == []
        assert found["StreamInterrupted"].resume.topic_id
        await busy.until(lambda: busy.accepted == number)
        assert active(metrics) == 1


async def test_a_client_that_vanishes_leaves_its_ticks_and_nothing_else(own):
    settings = own()
    async with served(settings) as (address, metrics):
        async with connected(address) as stub:
            client = MarketClient(stub)
            for i in range(100):
                await client.send(i + 1, tick("A", i))
            await until(lambda: active(metrics) == 1)
            await client.until(lambda: client.accepted > 0)
        await until(lambda: active(metrics) == 0)
        code = {"method": "StreamMarketData", "code": "CANCELLED"}
        await until(
            lambda: metrics.registry.get_sample_value("mystocks_grpc_calls_total", code) == 1
        )
        sample = metrics.registry.get_sample_value
        in_flight = sample("mystocks_grpc_calls_in_flight", {"method": "StreamMarketData"})
        assert in_flight == 0
    log = await asyncio.to_thread(log_ticks, settings)
    assert sum(map(len, log.values())) >= client.accepted


class Proxy:
    """Passes bytes on until it is frozen: then both sides wait, as when a cable is pulled."""

    def __init__(self, address):
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._running = asyncio.Event()
        self._running.set()
        self._tasks = []

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def freeze(self):
        self._running.clear()

    async def _serve(self, reader, writer):
        other_reader, other_writer = await asyncio.open_connection(self._host, self._port)
        for source, target in ((reader, other_writer), (other_reader, writer)):
            self._tasks.append(asyncio.create_task(self._pass_on(source, target)))

    async def _pass_on(self, source, target):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                await self._running.wait()
                target.write(data)
                await target.drain()

    async def close(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_a_half_open_connection_is_noticed(own):
    async with served(own(keepalive_s=1.0)) as (address, metrics):
        proxy = Proxy(address)
        async with connected(await proxy.start()) as stub:
            client = MarketClient(stub)
            await client.send(1, tick("A"))
            await client.until(lambda: client.accepted == 1)
            proxy.freeze()
            await until(lambda: active(metrics) == 0)
            await proxy.close()


async def test_a_client_that_does_not_read_is_not_read_either(own, monkeypatch):
    monkeypatch.setattr("grpc_bridge.tick_sink._MAX_UNSENT", 1000)
    bad, count = [tick("A", i, price=-1.0) for i in range(500)], 120
    window = {"http2.bdp_probe": 0, "http2.lookahead_bytes": 65_536}
    async with (
        served(own()) as (address, _),
        connected(address) as other,
        connected(address, **window) as stub,
    ):
        client = MarketClient(stub)
        sending = asyncio.create_task(_send_all(client, bad, count))
        received = await settled(other)
        assert 1000 <= received < 500 * count
        await client.until(lambda: len(client.refused) == 500 * count)
        await sending


async def _send_all(client, ticks, count):
    for number in range(1, count + 1):
        await client.send(number, *ticks)


async def test_stopping_the_bridge_acknowledges_what_it_has_and_says_what_it_has_not(own):
    async with contextlib.AsyncExitStack() as stack:
        bridge = await stack.enter_async_context(contextlib.AsyncExitStack())
        address, _ = await bridge.enter_async_context(served(own()))
        stub = await stack.enter_async_context(connected(address))
        client = MarketClient(stub)
        await client.send(1, tick("A"))
        await client.until(lambda: client.accepted == 1)
        subscription = stub.SubscribeFeatures(realtime_pb2.SubscribeFeaturesRequest())
        await subscription.read()
        stopping = asyncio.create_task(bridge.aclose())
        assert await client.rest() is grpc.StatusCode.UNAVAILABLE
        assert "being stopped" in await client.call.details()
        assert list((await details(client.call))["StreamInterrupted"].unacknowledged) == []
        assert await subscription.code() is grpc.StatusCode.UNAVAILABLE
        assert (await details(subscription))["StreamInterrupted"].resume.topic_id
        await stopping
