"""The broker goes and comes back, topics are deleted, the bridge stops."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from grpc_bridge.fanout import broker as broker_module
from grpc_bridge.fanout.errors import (
    BadSelectionError,
    StartDeletedError,
    StreamCutError,
    TopicReplacedError,
    UnknownFeatureSetError,
)
from mystocks.v1.market_pb2 import NextPosition, ResumeToken
from mystocks.v1.realtime_pb2 import SubscribeFeaturesResponse
from schemas.errors import UnavailableError
from streams.local.artifacts import ensure_jars
from streams.local.class_data import ensure_class_data
from streams.local.java import find_java
from streams.local.kafka import KafkaBroker
from tests.grpc_bridge.fanout.rig import FeaturesTopic, Seen, collect, running

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> FeaturesTopic:
    return FeaturesTopic(kafka_bootstrap, unique)


@pytest.fixture
def own_broker(tmp_path: Path):
    java, jars = find_java(), ensure_jars()
    broker = KafkaBroker(
        tmp_path / "kafka",
        tmp_path / "kafka.log",
        java=java,
        jars=jars,
        jvm_flags=ensure_class_data(java, jars),
        quick_start=True,
    )
    broker.launch()
    broker.wait_ready()
    yield broker
    broker.stop()


@pytest.mark.asyncio
async def test_streams_outlive_a_broker_that_is_killed_and_comes_back(own_broker, unique):
    topic = FeaturesTopic(own_broker.address, unique)
    topic.write(0, 5)
    async with running(topic.hub()) as hub:
        stands = [asyncio.Event() for _ in range(3)]
        readers = [
            asyncio.create_task(collect(hub, topic.request(earliest=True), 12, stands=event))
            for event in stands
        ]
        await asyncio.gather(*(event.wait() for event in stands))
        os.kill(own_broker.pid, signal.SIGKILL)
        own_broker.stop()
        cut = asyncio.create_task(hub.caught_up(topic.set))
        await asyncio.to_thread(own_broker.launch, own_broker.port)
        await asyncio.to_thread(own_broker.wait_ready)
        await asyncio.to_thread(topic.write, 0, 4)
        await asyncio.to_thread(topic.write, 1, 3)
        for seen in await asyncio.wait_for(asyncio.gather(*readers), 30):
            assert seen.rows == topic.everything()
        await asyncio.wait_for(cut, 20)
        assert (await collect(hub, topic.request(earliest=True), 12)).rows == topic.everything()


@pytest.mark.asyncio
async def test_a_broker_that_came_back_is_asked_for_ends_at_once(own_broker, unique):
    topic = FeaturesTopic(own_broker.address, unique)
    topic.write(0, 5)
    async with running(topic.hub()) as hub:
        seen = await collect(hub, topic.request(earliest=True), 5)
        os.kill(own_broker.pid, signal.SIGKILL)
        own_broker.stop()
        early = asyncio.create_task(_first_response(hub, topic.request()))
        await asyncio.to_thread(own_broker.launch, own_broker.port)
        await asyncio.to_thread(own_broker.wait_ready)
        for request in (topic.request(), topic.request(resume=seen.token)):
            first = await asyncio.wait_for(_first_response(hub, request), 20)
            assert [place.row for place in first.resume.next][:1] == [5]
        await asyncio.wait_for(early, 20)


async def _first_response(hub, request):
    async with hub.subscribe(request.selection, request) as subscription:
        return SubscribeFeaturesResponse.FromString(await anext(subscription))


@pytest.mark.asyncio
async def test_a_topic_made_again_ends_streams_and_old_tokens(topic):
    topic.write(0, 5)
    async with running(topic.hub(check_topics_s=0.1)) as hub:
        seen, stands = Seen(), asyncio.Event()
        reading = asyncio.create_task(
            collect(hub, topic.request(earliest=True), 100, seen=seen, stands=stands)
        )
        await stands.wait()
        topic.admin.delete_topics([topic.topic])[topic.topic].result(10)
        topic.create()
        with pytest.raises(TopicReplacedError, match="deleted") as ended:
            await asyncio.wait_for(reading, 20)
        assert ended.value.resume == seen.token.SerializeToString()
        topic.next_row = {0: 0, 1: 0}
        topic.write(0, 3)
        with pytest.raises(BadSelectionError, match="deleted and created again"):
            await collect(hub, topic.request(resume=seen.token), 1)
        assert (await collect(hub, topic.request(earliest=True), 3)).rows == topic.everything()


@pytest.mark.asyncio
async def test_a_reader_of_the_past_learns_where_to_resume_when_its_topic_is_replaced(topic):
    topic.write(0, 5)
    async with running(topic.hub(check_topics_s=0.1)) as hub:
        request = topic.request(earliest=True)
        async with hub.subscribe(request.selection, request) as subscription:
            stands = SubscribeFeaturesResponse.FromString(await anext(subscription))
            topic.admin.delete_topics([topic.topic])[topic.topic].result(10)
            topic.create()
            with pytest.raises(TopicReplacedError):
                await asyncio.wait_for(hub.caught_up(topic.set, {0: 100}), 20)
            with pytest.raises(TopicReplacedError, match="deleted") as ended:
                await anext(subscription)
        assert ended.value.resume == stands.resume.SerializeToString()


@pytest.mark.asyncio
async def test_a_token_of_deleted_rows_is_refused_with_what_to_do(topic):
    for _ in range(10):
        topic.write(0, 5)
    trimmed = topic.admin.delete_records([TopicPartition(topic.topic, 0, 6)])
    for future in trimmed.values():
        future.result(10)
    async with running(topic.hub()) as hub:
        for place in (
            NextPosition(partition=0, row=20, offset=4),
            NextPosition(partition=0, row=20),
            NextPosition(partition=0, row=20, offset=6),
        ):
            with pytest.raises(StartDeletedError, match="'earliest'"):
                await collect(hub, topic.request(resume=ResumeToken(next=[place])), 1)
        token = ResumeToken(next=[NextPosition(partition=0, row=32)])
        seen = await collect(hub, topic.request(resume=token), 18)
        assert seen.in_order[0] == list(range(32, 50))


@pytest.mark.asyncio
async def test_a_bridge_that_stops_ends_streams_with_a_token(topic):
    topic.write(0, 5)
    async with running(topic.hub()) as hub:
        seen, stands = Seen(), asyncio.Event()
        live = asyncio.create_task(collect(hub, topic.request(), 100, seen=seen, stands=stands))
        await stands.wait()
        await asyncio.sleep(0.05)
        await hub.close()
        with pytest.raises(StreamCutError) as ended:
            await live
        assert ended.value.resume == seen.token.SerializeToString()
        with pytest.raises(UnavailableError):
            await collect(hub, topic.request(), 1)


@pytest.mark.asyncio
async def test_a_set_without_topic_is_found_once_it_is_there(kafka_bootstrap, unique):
    topic = FeaturesTopic(kafka_bootstrap, unique, create=False)
    async with running(topic.hub()) as hub:
        with pytest.raises(UnknownFeatureSetError):
            await collect(hub, topic.request(), 1)
        topic.create()
        topic.write(0, 2)
        assert (await collect(hub, topic.request(earliest=True), 2)).rows == topic.everything()


@pytest.mark.asyncio
async def test_without_a_broker_a_subscription_is_unavailable(unused_tcp_port, monkeypatch):
    monkeypatch.setattr(broker_module, "_ANSWER_S", 0.3)
    topic = FeaturesTopic(f"127.0.0.1:{unused_tcp_port}", "ticks", create=False)
    async with running(topic.hub()) as hub:
        with pytest.raises(UnavailableError, match="check the broker"):
            await collect(hub, topic.request(), 1)
