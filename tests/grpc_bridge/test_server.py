"""Everything around the methods: services, health, reflection, metrics, the port."""

import asyncio
import random
import urllib.request

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from grpc_bridge.backtest import IntegratedBacktestService
from grpc_bridge.jobs import IntegratedJobService
from grpc_bridge.ml import IntegratedMLService
from grpc_bridge.realtime import IntegratedRealTimeService
from mystocks.v1 import realtime_pb2
from schemas.errors import UnavailableError
from tests.grpc_bridge.rig import MarketClient, connected, served, tick

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]

SERVICES = [
    IntegratedRealTimeService,
    IntegratedBacktestService,
    IntegratedMLService,
    IntegratedJobService,
]
NAMES = [service.descriptor.full_name for service in SERVICES]


async def test_every_method_of_every_service_answers(live):
    async with grpc.aio.insecure_channel(live.address) as channel:
        for service in SERVICES:
            for method in service.descriptor.methods:
                if service is IntegratedRealTimeService:
                    continue
                name = f"/{service.descriptor.full_name}/{method.name}"
                call = channel.stream_stream(name)()
                await call.write(b"")
                await call.done_writing()
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
                assert await call.code() is grpc.StatusCode.UNIMPLEMENTED, name
                assert f"was {method.name};" in await call.details()


async def test_random_bytes_are_an_invalid_argument_of_every_unary_method(live):
    async with grpc.aio.insecure_channel(live.address) as channel:
        for method in ("GetFeatures", "GetStreamStats"):
            call = channel.unary_unary(f"/mystocks.v1.RealTimeService/{method}")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff\x01\x02")
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, method


async def test_random_bytes_are_an_invalid_argument_of_a_subscription(live):
    chance = random.Random(4)
    values = [b"\xff\x01\x02", *(chance.randbytes(chance.randrange(1, 60)) for _ in range(40))]
    async with grpc.aio.insecure_channel(live.address) as channel:
        subscribe = channel.unary_stream("/mystocks.v1.RealTimeService/SubscribeFeatures")
        for value in values:
            try:
                realtime_pb2.SubscribeFeaturesRequest.FromString(value)
            except DecodeError:
                call = subscribe(value)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, value
                assert "expected a SubscribeFeaturesRequest" in caught.value.details()


async def test_health_of_the_server_and_of_each_service(live):
    async with grpc.aio.insecure_channel(live.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", *NAMES):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nope"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services_and_their_files(live):
    async with grpc.aio.insecure_channel(live.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = await call.read()
        found = {service.name for service in listed.list_services_response.service}
        assert found >= {*NAMES, "grpc.health.v1.Health"}
        symbol = "mystocks.v1.RealTimeService"
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
        answer = await call.read()
        raw = answer.file_descriptor_response.file_descriptor_proto[0]
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        assert [service.name for service in file.service] == ["RealTimeService"]
        await call.done_writing()


async def test_calls_are_counted_and_timed_by_method_and_code(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        await client.send(1, tick(unique))
        await client.finish()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetFeatures(realtime_pb2.GetFeaturesRequest(symbols=["a b"]))
        open_stream = MarketClient(stub)
        await open_stream.send(1, tick(unique, 1))
        await open_stream.until(lambda: open_stream.accepted == 1)
        text = await asyncio.to_thread(_fetch, live.bridge.ready["metrics"])
        open_stream.call.cancel()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    def value(name, **labels):
        return samples[name, tuple(sorted(labels.items()))]

    ok = {"method": "StreamMarketData", "code": "OK"}
    assert value("mystocks_grpc_calls_total", **ok) >= 1
    assert value("mystocks_grpc_call_seconds_count", **ok) >= 1
    bad = {"method": "GetFeatures", "code": "INVALID_ARGUMENT"}
    assert value("mystocks_grpc_calls_total", **bad) >= 1
    assert value("mystocks_grpc_calls_in_flight", method="StreamMarketData") >= 1
    assert value("realtime_streams_active") >= 1
    assert value("mystocks_grpc_ticks_total", result="acknowledged") >= 2


def _fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


async def test_the_ready_line_has_the_address_that_is_served(live):
    host, _, port = live.bridge.ready["grpc"].rpartition(":")
    assert host == "127.0.0.1"
    assert live.settings.grpc.port == 0 < int(port)  # a free one was taken
    async with connected(f"{host}:{port}") as stub:
        stats = await stub.GetStreamStats(realtime_pb2.GetStreamStatsRequest())
        assert stats.max_streams == live.settings.grpc.max_streams


async def test_a_port_that_is_taken_is_named(own):
    async with served(own()) as (address, _):
        port = int(address.rpartition(":")[2])
        with pytest.raises(UnavailableError, match=f"listen on 127.0.0.1:{port}"):
            async with served(own(port=port)):
                pass


async def test_two_bridges_share_a_port_when_told_to(own):
    async with served(own(reuse_port=True)) as (address, first):
        port = int(address.rpartition(":")[2])
        async with served(own(reuse_port=True, port=port)) as (_, second):

            def streams(metrics):
                return metrics.registry.get_sample_value("realtime_streams_active")

            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                done = asyncio.Event()

                async def client():
                    async with connected(address) as stub:
                        one = MarketClient(stub)
                        await one.send(1, tick("A"))
                        await one.until(lambda: one.accepted == 1)
                        await done.wait()

                for _ in range(16):
                    group.create_task(client())
                while not (streams(first) and streams(second)):
                    await asyncio.sleep(0.01)
                done.set()
