"""`SubscribeFeatures` over real gRPC: slow clients, vanishing clients, a hundred at once."""

import asyncio
import contextlib

import grpc
import pytest
from google.rpc import status_pb2

from grpc_bridge.errors import abort
from grpc_bridge.subscribe_features import subscribe_features
from mystocks.v1.realtime_pb2 import (
    StreamInterrupted,
    SubscribeFeaturesRequest,
    SubscribeFeaturesResponse,
)
from schemas.errors import MyStocksError
from tests.grpc_bridge.fanout.rig import FeaturesTopic, Seen, collect

pytestmark = pytest.mark.kafka
_METHOD = "/mystocks.v1.RealTimeService/SubscribeFeatures"
# gRPC's own buffers hold what a client does not read; small ones make it slow sooner.
_SMALL = [("grpc.http2.lookahead_bytes", 16 * 1024), ("grpc.http2.bdp_probe", 0)]


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> FeaturesTopic:
    return FeaturesTopic(kafka_bootstrap, unique)


@contextlib.asynccontextmanager
async def served(hub):
    """The method on a bare server; yields a call with the bytes of its responses."""

    async def handler(request, context):
        try:
            responses = subscribe_features(hub, request)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await context.write(response)
        except MyStocksError as error:
            await abort(context, error)

    await hub.start()
    server = grpc.aio.server(options=_SMALL)
    method = grpc.unary_stream_rpc_method_handler(handler, SubscribeFeaturesRequest.FromString)
    service, name = _METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {name: method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_SMALL) as channel:
            yield channel.unary_stream(
                _METHOD,
                request_serializer=SubscribeFeaturesRequest.SerializeToString,
                response_deserializer=SubscribeFeaturesResponse.FromString,
            )
    finally:
        await server.stop(0)
        await hub.close()


async def _read(call, count: int, seen: Seen | None = None) -> Seen:
    seen = Seen(check=False) if seen is None else seen
    async for response in call:
        seen.add(response)
        if len(seen) >= count:
            call.cancel()
            return seen
    return seen


@pytest.mark.asyncio
async def test_many_readers_get_every_row_and_a_stuck_one_stops_nobody(topic):
    hub = topic.hub(queue_bytes=64 * 1024)
    async with served(hub) as subscribe:
        calls = [subscribe(topic.request()) for _ in range(30)]
        stuck, seen = subscribe(topic.request()), Seen(check=False)
        first = [await anext(aiter(call)) for call in [*calls, stuck]]
        assert not any(response.blocks for response in first)
        seen.add(first[-1])
        quick = [asyncio.create_task(_read(call, 9_000)) for call in calls]
        for _ in range(30):
            topic.write(0, 150, flush=False)
            topic.write(1, 150)
            await asyncio.sleep(0.005)
        for reader in await asyncio.gather(*quick):
            assert reader.rows == topic.everything()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await _read(stuck, 9_000, seen)
        assert ended.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(ended.value.trailing_metadata())["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(details)
        interrupted = StreamInterrupted()
        assert any(detail.Unpack(interrupted) for detail in status.details)
        assert interrupted.resume == seen.token
        rest = subscribe(topic.request(resume=interrupted.resume))
        assert (await _read(rest, 9_000, seen)).rows == topic.everything()


@pytest.mark.asyncio
async def test_clients_that_vanish_leave_nothing_behind(topic):
    hub = topic.hub()
    async with served(hub) as subscribe:
        topic.write(0, 10)
        calls = [subscribe(topic.request(earliest=True)) for _ in range(5)]
        calls += [subscribe(topic.request(symbols=["IBM"])) for _ in range(5)]
        for call in calls:
            await anext(aiter(call))
        feed = await hub._feed(topic.set)
        for call in calls:
            call.cancel()
        async with asyncio.timeout(10):
            while feed._shared or feed._everything or feed._by_symbol:
                await asyncio.sleep(0.01)
        topic.write(0, 10)
        assert (await collect(hub, topic.request(earliest=True), 20)).rows == topic.everything()
