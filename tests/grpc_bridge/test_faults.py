"""What dies under open streams: the bridge, the broker; nothing is lost that was acknowledged."""

import asyncio
import contextlib
import os
import signal
import time
import uuid

import grpc
import pytest

from mystocks.v1 import realtime_pb2
from streams.local.stack import LocalStack
from tests.grpc_bridge.rig import (
    BridgeProcess,
    MarketClient,
    bridge_settings,
    connected,
    details,
    log_ticks,
    served,
    tick,
)
from tests.roles.rig import FeaturesRig
from tests.suspend import suspend

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]

PROMPT_S = 10.0


async def test_a_killed_bridge_ends_100_streams_at_once_and_its_successor_serves_on(own):
    settings = own()
    bridge = await asyncio.to_thread(BridgeProcess, settings)
    address = await asyncio.to_thread(lambda: bridge.address)
    async with connected(address) as stub:
        clients = [MarketClient(stub) for _ in range(100)]
        for k, client in enumerate(clients):
            await client.send(1, tick(f"S{k}"))
        for client in clients:
            await client.until(lambda client=client: client.accepted == 1)
        bridge.end(signal.SIGKILL)
        codes = await asyncio.gather(*(client.rest(PROMPT_S) for client in clients))
        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}
        port = int(address.rpartition(":")[2])
        again = await asyncio.to_thread(BridgeProcess, settings, port=port)
        assert await asyncio.to_thread(lambda: again.address) == address
        client = await _first_answer(stub)
        assert client.accepted == 1
        client.call.cancel()
        again.end()
    log = await asyncio.to_thread(log_ticks, settings)
    written = sorted(t.symbol for ticks in log.values() for t in ticks if t.symbol != "again")
    assert written == sorted(f"S{k}" for k in range(100))


async def _first_answer(stub) -> MarketClient:
    """A client of a server that has come back; gRPC waits a moment between two attempts."""
    async with asyncio.timeout(30):
        while True:
            client = MarketClient(stub)
            with contextlib.suppress(
                AssertionError, grpc.aio.AioRpcError, asyncio.InvalidStateError
            ):
                await client.send(1, tick("again"))
                await client.until(lambda client=client: client.accepted == 1)
                return client
            await asyncio.sleep(0.1)


class OwnBroker:
    """A broker that a test may stop."""

    def __init__(self, directory, redis_url):
        self._directory = directory
        self._redis = redis_url
        self.stack = LocalStack(directory / "stack", quick_start=True, redis=False)
        self.bootstrap = self.stack.start().kafka

    def settings(self, **grpc):
        name = f"t{uuid.uuid4().hex[:8]}"
        return bridge_settings(name, self.bootstrap, self._redis, self._directory, **grpc)

    def send(self, number):
        os.kill(self.stack.pids["kafka"], number)

    def restart(self):
        """As after a crash, on the same port."""
        self.send(signal.SIGKILL)
        self.stack.stop()
        self.stack = LocalStack(self._directory / "stack", quick_start=True, redis=False)
        assert self.stack.start().kafka == self.bootstrap


@pytest.fixture(scope="module")
def broker(redis_url, tmp_path_factory):
    made = OwnBroker(tmp_path_factory.mktemp("broker"), redis_url)
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.send(signal.SIGCONT)
    made.stack.stop()


@contextlib.asynccontextmanager
async def silent(broker):
    """The broker takes connections and answers nothing."""
    suspend(broker.stack.pids["kafka"])
    try:
        yield
    finally:
        broker.send(signal.SIGCONT)


async def test_a_lost_broker_ends_streams_that_wait_for_it_and_names_their_requests(broker):
    settings = broker.settings(delivery_timeout_s=1.0)
    async with served(settings) as (address, _), connected(address) as stub:
        client, listener = MarketClient(stub), MarketClient(stub)
        await client.send(1, tick("A"))
        await client.until(lambda: client.accepted == 1)
        await listener.send(1, tick("B"))
        await listener.until(lambda: listener.accepted == 1)
        async with silent(broker):
            for number in range(2, 5):
                await client.send(number, tick("A", number))
            await client.send(5, tick("A", price=-1.0))
            began = time.monotonic()
            assert await client.rest() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began >= 0.9
        found = await details(client.call)
        assert list(found["StreamInterrupted"].unacknowledged) == [2, 3, 4]
        assert found["StreamInterrupted"].resume.topic_id
        assert found["RetryInfo"].retry_delay.seconds == 1
        assert [number for number, _, _ in client.refused] == [5]
        assert "expected the broker to take ticks within 1 s" in await client.call.details()
        # Who did not wait for the broker was not ended.
        await listener.send(2, tick("B", 1))
        await listener.until(lambda: listener.accepted == 2)
    log = await asyncio.to_thread(log_ticks, settings)
    times = [t.event_time_ns for ticks in log.values() for t in ticks if t.symbol == "A"]
    assert times == sorted(set(times))


async def test_a_client_that_is_faster_than_the_broker_is_slowed_and_loses_nothing(broker):
    settings = broker.settings(delivery_timeout_s=30.0, unacknowledged_bytes=64 * 1024)
    count, ticks = 400, [tick(f"S{j % 9}", j) for j in range(500)]
    size = len(realtime_pb2.MarketDataRequest(batch={"ticks": ticks}).SerializeToString())
    window = {"http2.bdp_probe": 0}
    async with served(settings) as (address, _), connected(address, **window) as stub:
        client = MarketClient(stub)
        await client.send(0, tick("S0"))
        await client.until(lambda: client.accepted == 1)

        async def send():
            for number in range(1, count + 1):
                await client.send(number, *ticks)

        async with silent(broker):
            sending = asyncio.create_task(send())
            await asyncio.sleep(1.5)
            server = _sender_of(address)
            # A message over the bound, and what had been read before it was reached.
            assert 64 * 1024 < server.outstanding_bytes < 64 * 1024 + 2 * size
            assert not sending.done()
        await client.until(lambda: client.accepted == 500 * count + 1)
        await sending
        assert sum(a for _, a, _, _ in client.acknowledged) == 500 * count + 1


def _sender_of(_address):
    import gc

    from grpc_bridge.tick_sink import TickSink

    return next(o for o in gc.get_objects() if isinstance(o, TickSink) and o.outstanding_bytes)


async def test_a_broker_restarted_under_open_streams_costs_no_tick_and_no_row(
    broker, redis_url, tmp_path
):
    settings = broker.settings(delivery_timeout_s=60.0)
    features = FeaturesRig(settings.features.name, broker.bootstrap, redis_url, tmp_path)
    await asyncio.to_thread(features.start)
    try:
        async with served(settings) as (address, _), connected(address) as stub:
            client, chosen = MarketClient(stub), MarketClient(stub)
            await chosen.select(symbols=["A"])
            await chosen.until(lambda: chosen.token is not None)
            sent = 0

            async def send(count):
                nonlocal sent
                for _ in range(count):
                    sent += 1
                    await client.send(sent, tick("A", event_time_ns=time.time_ns()))

            await send(50)
            await client.until(lambda: len(client.rows) == sent)
            restarting = asyncio.create_task(asyncio.to_thread(broker.restart))
            while not restarting.done():
                await send(1)
                await asyncio.sleep(0.02)
            await restarting
            # The streams are what is looked at: the role starts anew, as under a supervisor.
            features.kill()
            await asyncio.to_thread(features.start)
            await send(50)
            await client.until(lambda: client.accepted == sent)
            await client.until(lambda: len(client.rows) == sent)
            await chosen.until(lambda: len(chosen.rows) == sent)
            assert not client.twice
            assert chosen.rows == client.rows
            assert sorted(n for n, _, _, _ in client.acknowledged) == list(range(1, sent + 1))
            await client.finish()
            chosen.call.cancel()
    finally:
        features.kill()
