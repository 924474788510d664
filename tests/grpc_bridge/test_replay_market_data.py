"""`ReplayMarketData` against real roles: rows and ticks of the past, errors, clients that leave."""

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pytest

from mystocks import AsyncClient, Client
from mystocks.cli.replay_run import run_by_role
from mystocks.sdk import InvalidRequestError
from mystocks.v1 import market_pb2, realtime_pb2
from schemas.replay import ReplayRequest
from schemas.topics import features_topic, replay_topic
from streams.kafka.admin import admin_client
from tests.grpc_bridge.rig import bridge_settings, connected, details, served
from tests.roles.replay_rig import (
    DAY,
    SECOND,
    SYMBOLS,
    ReplayRole,
    count_of,
    in_environment,
    produce_timed,
    selected,
    ticks,
)
from tests.roles.rig import PARTITIONS, FeaturesRig

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio, pytest.mark.timeout(180)]

TICKS = 6_000
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def past(kafka_bootstrap, redis_url, tmp_path_factory):
    """A feature set that has computed, its rows, and a role that replays."""
    name = f"t{uuid.uuid4().hex[:12]}"
    data_dir = tmp_path_factory.mktemp("past")
    rig = FeaturesRig(name, kafka_bootstrap, redis_url, data_dir, indicators=["sma_3", "ema_5"])
    in_environment(rig, name)
    produce_timed(rig, ticks(TICKS))
    rig.start()
    rows = rig.await_rows(TICKS)
    rig.stop()
    settings = bridge_settings(name, kafka_bootstrap, redis_url, data_dir)
    settings = settings.model_copy(update={"environment": name, "features": rig.settings.features})
    role = ReplayRole(settings)
    yield settings, rows
    role.stop()


def request(**fields: object) -> realtime_pb2.ReplayMarketDataRequest:
    span = market_pb2.TimeRange(
        start_ns=fields.pop("start_ns", DAY), end_ns=fields.pop("end_ns", None)
    )
    return realtime_pb2.ReplayMarketDataRequest(range=span, **fields)


async def collect(stub, **fields: object) -> tuple[list, list, list]:
    """Returns blocks, tick batches and progress of a whole replay."""
    blocks, batches, progress = [], [], []
    async with asyncio.timeout(PATIENCE_S):
        async for response in stub.ReplayMarketData(request(**fields)):
            kind = response.WhichOneof("kind")
            target = {"features": blocks, "ticks": batches, "progress": progress}[kind]
            target.append(getattr(response, kind))
    return blocks, batches, progress


def columns_of(blocks, partition: int) -> dict[str, list]:
    """Rows of a partition in columns; floats as bits, so that equal is equal."""
    found: dict[str, list] = {"symbol": [], "event_time": [], "price": []}
    for block in blocks:
        if block.first_row.partition != partition:
            continue
        found["symbol"] += [block.symbols[i] for i in block.symbol_index]
        found["event_time"] += block.event_time_ns
        found["price"] += np.array(block.prices).view(np.int64).tolist()
        values = np.array(block.values).reshape(len(block.names), -1)
        for name, column in zip(block.names, values, strict=True):
            bits = np.where(np.isnan(column), np.iinfo(np.int64).min, column.view(np.int64))
            found.setdefault(name, []).extend(bits.tolist())
    return found


async def test_rows_of_a_range_are_those_of_live_and_the_output_is_deleted(past):
    settings, rows = past
    start, end = DAY + 1000 * SECOND, DAY + 4000 * SECOND
    async with served(settings) as (address, _), connected(address) as stub:
        blocks, batches, progress = await collect(
            stub, start_ns=start, end_ns=end, feature_set=settings.features.name
        )
        assert not batches
        assert progress[-1].fraction == 1.0
        assert progress[-1].ticks == count_of(rows, start, end)
        for partition in range(PARTITIONS):
            wanted = selected(rows, partition, start, end)
            assert columns_of(blocks, partition) == wanted
    left = admin_client(settings).list_topics(timeout=10).topics
    output = features_topic(settings.features.name)
    assert not [name for name in left if name.startswith(f"{output}.replay.call-")]


async def test_a_named_run_stays_and_can_be_read_again_but_not_as_another(past):
    settings, rows = past
    fields = {"feature_set": settings.features.name, "run": "named", "symbols": SYMBOLS[:4]}
    async with served(settings) as (address, _), connected(address) as stub:
        first, _, _ = await collect(stub, **fields)
        again, _, _ = await collect(stub, **fields)
        assert sum(len(block.prices) for block in first) == count_of(rows, DAY, None, SYMBOLS[:4])
        for partition in range(PARTITIONS):
            assert columns_of(first, partition) == columns_of(again, partition)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await collect(stub, **(fields | {"symbols": SYMBOLS[:5]}))
        assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_run_of_the_command_line_is_that_of_a_call_which_asks_for_the_same(past):
    settings, rows = past
    asked = ReplayRequest("both", DAY, topic=settings.features.source_topic)
    # In this thread: it handles signals.
    assert run_by_role(settings, asked)["state"] == "SUCCEEDED"
    async with served(settings) as (address, _), connected(address) as stub:
        blocks, _, _ = await collect(stub, feature_set=settings.features.name, run="both")
        assert sum(len(block.prices) for block in blocks) == count_of(rows, DAY)
        await collect(stub, feature_set=settings.features.name, run="later", start_ns=DAY + 1)
    later = ReplayRequest("later", DAY + 1, topic=settings.features.source_topic)
    assert run_by_role(settings, later)["state"] == "SUCCEEDED"


async def test_a_run_whose_output_was_deleted_is_refused(past):
    settings, _ = past
    fields = {"feature_set": settings.features.name, "run": "deleted", "symbols": SYMBOLS[:1]}
    async with served(settings) as (address, _), connected(address) as stub:
        await collect(stub, **fields)
        topic = replay_topic(features_topic(settings.features.name), "deleted")
        # It answers only as long as somebody holds it.
        admin = admin_client(settings)
        admin.delete_topics([topic])[topic].result(30)
        with pytest.raises(grpc.aio.AioRpcError, match="there no more") as failure:
            await collect(stub, **fields)
        assert failure.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_other_indicators_are_computed_from_the_log(past):
    settings, rows = past
    async with served(settings) as (address, _), connected(address) as stub:
        blocks, _, _ = await collect(stub, start_ns=DAY + 5000 * SECOND, indicators=["sma_7"])
    assert {tuple(block.names) for block in blocks} == {("sma_7",)}
    assert sum(len(block.prices) for block in blocks) == count_of(rows, DAY + 5000 * SECOND)
    # What is before the range was computed as well.
    assert not any(np.isnan(block.values).any() for block in blocks)


async def test_ticks_alone_come_as_they_are_and_paced_in_the_order_of_event_time(past):
    settings, rows = past
    start, end = DAY + 2000 * SECOND, DAY + 3000 * SECOND
    async with served(settings) as (address, _), connected(address) as stub:
        _, batches, progress = await collect(stub, start_ns=start, end_ns=end)
        every = [tick for batch in batches for tick in batch.ticks]
        assert len(every) == count_of(rows, start, end) == progress[-1].ticks
        assert all(start <= tick.event_time_ns < end for tick in every)
        assert {tick.size for tick in every} == {1.0}
        _, batches, _ = await collect(
            stub, start_ns=start, end_ns=end, symbols=SYMBOLS[:2], speed=2000.0
        )
        some = [tick for batch in batches for tick in batch.ticks]
        assert len(some) == count_of(rows, start, end, SYMBOLS[:2])
        assert {tick.symbol for tick in some} == set(SYMBOLS[:2])


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"start_ns": 5}, grpc.StatusCode.INVALID_ARGUMENT, "range.start_ns"),
        ({"end_ns": DAY - 1}, grpc.StatusCode.INVALID_ARGUMENT, "range.end_ns"),
        ({"speed": -1.0}, grpc.StatusCode.INVALID_ARGUMENT, "speed"),
        ({"symbols": ["A B"]}, grpc.StatusCode.INVALID_ARGUMENT, "symbols[0]"),
        ({"run": "a.b"}, grpc.StatusCode.INVALID_ARGUMENT, "run"),
        ({"profile": "cn"}, grpc.StatusCode.INVALID_ARGUMENT, "profile"),
        (
            {"indicators": ["sma_3"], "feature_set": "x"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "feature_set",
        ),
        ({"indicators": ["nonsense_3"]}, grpc.StatusCode.INVALID_ARGUMENT, "indicators"),
        ({"feature_set": "unknown"}, grpc.StatusCode.NOT_FOUND, "feature_set"),
    ],
)
async def test_bad_requests_are_answered_with_code_and_field(past, fields, code, field):
    settings, _ = past
    async with served(settings) as (address, _), connected(address) as stub:
        call = stub.ReplayMarketData(request(**fields))
        with contextlib.suppress(grpc.aio.AioRpcError):
            async with asyncio.timeout(PATIENCE_S):
                while await call.read() is not grpc.aio.EOF:
                    pass
        assert await call.code() is code, await call.details()
        assert (await details(call))["BadRequest"].field_violations[0].field == field


async def test_the_client_replays_in_both_forms(past):
    settings, rows = past
    start = datetime.fromtimestamp(DAY // SECOND, UTC)
    end = start + timedelta(seconds=1500)
    count = count_of(rows, DAY, DAY + 1500 * SECOND, SYMBOLS[:3])
    chosen = {"symbols": SYMBOLS[:3], "set": settings.features.name}
    async with served(settings) as (address, _):
        async with (
            AsyncClient(address) as client,
            client.replay(start, end, **chosen) as replayed,
        ):
            every = [row async for row in replayed]
            assert len(every) == count == replayed.progress.rows
            assert replayed.progress.fraction == 1.0
            with pytest.raises(InvalidRequestError):
                await client.replay(end, start).next_frame()

        def in_a_thread() -> int:
            with Client(address) as client, client.replay(start, end, **chosen) as replayed:
                return sum(len(frame) for frame in replayed.blocks())

        assert await asyncio.to_thread(in_a_thread) == count


async def test_without_a_role_the_call_says_so(past):
    settings, _ = past
    alone = settings.model_copy(update={"environment": "nobody"})
    async with served(alone) as (address, _), connected(address) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await collect(stub, indicators=["sma_3"])
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "role replay" in failure.value.details()


async def test_a_client_that_leaves_ends_its_replay(past):
    settings, rows = past
    async with served(settings) as (address, _), connected(address) as stub:
        call = stub.ReplayMarketData(request(feature_set=settings.features.name, speed=1.0))
        async with asyncio.timeout(PATIENCE_S):
            async for response in call:
                if response.WhichOneof("kind") == "features":
                    break
        call.cancel()
        # One at a time: the next one runs only when the first one has ended.
        blocks, _, _ = await collect(stub, feature_set=settings.features.name)
        assert sum(len(block.prices) for block in blocks) == count_of(rows, DAY)
