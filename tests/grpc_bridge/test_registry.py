"""Streams are counted, bounded, and ended from outside with a reason."""

import asyncio
import time

import pytest

from grpc_bridge.errors import StreamInterruptedError
from grpc_bridge.metrics import BridgeMetrics
from grpc_bridge.registry import StreamRegistry
from schemas.requests import Code, RequestFailedError
from schemas.settings import GrpcSettings

pytestmark = pytest.mark.asyncio


class Rows:
    queued_bytes = 7
    lag_rows = 8
    rows_sent = 9
    token = b"\x0a\x01x"


def registry_of(**settings):
    metrics = BridgeMetrics()
    return StreamRegistry(GrpcSettings(**settings), metrics), metrics


def active(metrics):
    return metrics.registry.get_sample_value("realtime_streams_active")


async def test_figures_of_an_open_stream():
    registry, metrics = registry_of()
    began = time.time_ns()
    async with registry.stream("ipv4:1.2.3.4:5", "StreamMarketData") as entry:
        entry.ticks_received, entry.ticks_acknowledged, entry.ticks_refused = 3, 2, 1
        entry.progress = Rows()
        assert active(metrics) == len(registry) == 1
        (stats,) = registry.stats()
        assert (stats.peer, stats.method) == ("ipv4:1.2.3.4:5", "StreamMarketData")
        assert began <= stats.started_ns <= stats.last_activity_ns + 10**7
        assert (stats.ticks_received, stats.ticks_acknowledged, stats.ticks_refused) == (3, 2, 1)
        assert (stats.queued_bytes, stats.lag_rows, stats.rows_sent) == (7, 8, 9)
        async with registry.stream("p", "SubscribeFeatures") as other:
            assert other.stream_id != entry.stream_id
    assert active(metrics) == len(registry) == 0


async def test_one_stream_too_many_is_told_to_try_again():
    registry, metrics = registry_of(max_streams=1)
    async with registry.stream("p", "m"):
        with pytest.raises(RequestFailedError, match="at most 1 open streams") as caught:
            async with registry.stream("p", "m"):
                pass
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert caught.value.retry_after_s is not None
    async with registry.stream("p", "m"):
        assert active(metrics) == 1


async def test_a_silent_stream_ends_with_what_it_needs_to_go_on():
    registry, metrics = registry_of(idle_timeout_s=0.2)
    watching = asyncio.create_task(registry.watch())

    async def silent():
        async with registry.stream("p", "m") as entry:
            entry.progress = Rows()
            entry.unacknowledged = lambda: [5, 6]
            await asyncio.sleep(30)

    async def busy(until):
        async with registry.stream("p", "m") as entry:
            while not until.done():
                entry.touch()
                await asyncio.sleep(0.01)

    ending = asyncio.create_task(silent())
    other = asyncio.create_task(busy(ending))
    with pytest.raises(StreamInterruptedError, match="something to move") as caught:
        await ending
    assert caught.value.code is Code.UNAVAILABLE
    assert (caught.value.resume, caught.value.unacknowledged) == (b"\x0a\x01x", [5, 6])
    await other
    watching.cancel()
    assert active(metrics) == 0


async def test_closing_ends_all_streams_and_lets_none_begin():
    registry, _ = registry_of()
    asked = []

    async def stream(polite):
        async with registry.stream("p", "m") as entry:
            if polite:
                ended = asyncio.Event()
                entry.ask_to_end = lambda error: (asked.append(error), ended.set())
                await ended.wait()
            else:
                await asyncio.sleep(30)

    rude, polite = (asyncio.create_task(stream(kind)) for kind in (False, True))
    await asyncio.sleep(0)
    registry.close()
    with pytest.raises(StreamInterruptedError, match="being stopped"):
        await rude
    await polite
    assert asked[0].code is Code.UNAVAILABLE
    with pytest.raises(RequestFailedError, match="being stopped"):
        async with registry.stream("p", "m"):
            pass


async def test_a_client_s_cancellation_stays_one():
    registry, metrics = registry_of()

    async def stream():
        async with registry.stream("p", "m"):
            await asyncio.sleep(30)

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert active(metrics) == 0
