"""`ComputeFeatures` by gRPC: the answer, the status of everything else, many bridges at once."""

import asyncio
import random
import signal

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from mystocks.v1.market_pb2 import OhlcvRows, TimeRange
from mystocks.v1.realtime_pb2 import ComputeFeaturesRequest
from processors.features.compute import compute_indicators
from tests.grpc_bridge.rig import connected, served
from tests.roles.compute_rig import ComputeRig
from tests.suspend import suspend

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio, pytest.mark.timeout(180)]

NOW = 1_700_000_000_000_000_000
FEATURES = ["sma_20", "rsi_14", "macd", "bollinger_20_2", "ema_12"]
TIMEOUT_S = 20.0


@pytest.fixture
def rig(kafka_bootstrap, unique, tmp_path):
    # No table is needed; the bridge's other services connect to it when they are used.
    made = ComputeRig(
        unique,
        kafka_bootstrap,
        tmp_path,
        grpc={"port": 0},
        redis={"url": "redis://127.0.0.1:1"},
        compute={"max_rows": 600},
    )
    yield made
    made.stop()


def prices_of(count: int, seed: int = 1) -> np.ndarray:
    return 100 + np.cumsum(np.random.default_rng(seed).normal(0, 0.1, count))


async def refusal(call) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """Returns code, field and status of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    error = failure.value
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    field = ""
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            field = request.field_violations[0].field
    return error.code(), field, status


async def test_rows_are_computed_and_bad_requests_refused_with_their_field(rig):
    close = prices_of(500)
    rows = OhlcvRows(event_time_ns=[NOW + i for i in range(500)], close=close, volume=[1.0] * 500)
    bad = {
        "an unknown feature": ({"features": ["typo"]}, "INVALID_ARGUMENT", "features"),
        "an unknown profile": ({"profile": "x"}, "INVALID_ARGUMENT", "profile"),
        "no close": ({"rows": OhlcvRows(open=[1.0])}, "INVALID_ARGUMENT", "rows.close"),
        "a missing column": ({"features": ["atr"]}, "INVALID_ARGUMENT", "rows.high"),
        "a price of zero": (
            {"rows": OhlcvRows(close=[1.0, 0.0])},
            "INVALID_ARGUMENT",
            "rows.close[1]",
        ),
        "too many rows": ({"rows": OhlcvRows(close=[1.0] * 601)}, "INVALID_ARGUMENT", "rows.close"),
        "too few rows": ({"features": ["sma_501"]}, "FAILED_PRECONDITION", "rows"),
        "a symbol that is none": ({"symbol": "?"}, "INVALID_ARGUMENT", "symbol"),
        "an unknown symbol": ({"symbol": "NONE", "rows": None}, "NOT_FOUND", "symbol"),
        "more than a record holds": (
            {"rows": OhlcvRows(close=[1.0] * 140_000)},
            "INVALID_ARGUMENT",
            "",
        ),
    }
    async with served(rig.settings) as (address, _), connected(address) as stub:
        rig.start()
        asked = {"features": FEATURES, "rows": rows, "symbol": "MINE"}
        answer = await stub.ComputeFeatures(ComputeFeaturesRequest(**asked), timeout=TIMEOUT_S)
        expected = compute_indicators(FEATURES, {"price": close, "size": np.ones(500)})
        assert not answer.HasField("error")
        block = answer.features
        assert list(block.names) == list(expected)
        assert np.array(block.values).tobytes() == np.array(list(expected.values())).tobytes()
        assert list(block.prices) == close.tolist()
        assert list(block.event_time_ns) == list(rows.event_time_ns)
        assert list(block.symbols) == ["MINE"]
        part = TimeRange(start_ns=NOW + 400, end_ns=NOW + 450)
        some = ComputeFeaturesRequest(**asked, range=part, last=5)
        answer = await stub.ComputeFeatures(some, timeout=TIMEOUT_S)
        assert list(answer.features.event_time_ns) == [NOW + i for i in range(445, 450)]

        for case, (change, code, field) in bad.items():
            request = ComputeFeaturesRequest(**asked | change)
            found = await refusal(stub.ComputeFeatures(request, timeout=TIMEOUT_S))
            assert (found[0].name, found[1]) == (code, field), case
            assert found[2].message.startswith("expected"), case

        async with grpc.aio.insecure_channel(address) as channel:
            raw = channel.unary_unary("/mystocks.v1.RealTimeService/ComputeFeatures")
            source = random.Random(3)
            for _ in range(30):
                found = await refusal(raw(source.randbytes(60), timeout=TIMEOUT_S))
                assert found[0] == grpc.StatusCode.INVALID_ARGUMENT
            found = await refusal(raw(bytes(5 * 1024**2), timeout=TIMEOUT_S))
            assert found[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_each_bridge_gets_its_own_replies(rig):
    rig.start()
    async with (
        served(rig.settings) as (one, _),
        served(rig.settings) as (two, _),
        connected(one) as first,
        connected(two) as second,
    ):

        async def ask(stub, seed: int) -> bool:
            close = prices_of(100, seed)
            request = ComputeFeaturesRequest(features=["rsi_7"], rows=OhlcvRows(close=close))
            answer = await stub.ComputeFeatures(request, timeout=TIMEOUT_S)
            expected = compute_indicators(["rsi_7"], {"price": close})["rsi_7"]
            return np.array(answer.features.values).tobytes() == expected.tobytes()

        asked = [ask(stub, seed) for seed in range(100) for stub in (first, second)]
        assert all(await asyncio.gather(*asked))


async def test_a_call_learns_that_nobody_computes_before_its_deadline(rig):
    request = ComputeFeaturesRequest(features=["sma_2"], rows=OhlcvRows(close=[1.0, 2.0]))
    async with served(rig.settings) as (address, _), connected(address) as stub:
        code, _, status = await refusal(stub.ComputeFeatures(request, timeout=TIMEOUT_S))
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "start role compute" in status.message
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)

        role = rig.start()
        assert (await stub.ComputeFeatures(request, timeout=TIMEOUT_S)).features.prices
        suspend(role.process.pid)
        try:
            code, _, status = await refusal(stub.ComputeFeatures(request, timeout=5.0))
        finally:
            role.process.send_signal(signal.SIGCONT)
        # Not DEADLINE_EXCEEDED: the bridge says what it waited for.
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "expected a reply of a compute worker" in status.message
        assert (await stub.ComputeFeatures(request, timeout=TIMEOUT_S)).features.prices


async def test_a_request_outlives_a_worker_that_is_killed_and_restarted_within_its_session(rig):
    close = prices_of(50)
    request = ComputeFeaturesRequest(features=["sma_2"], rows=OhlcvRows(close=close))
    expected = compute_indicators(["sma_2"], {"price": close})["sma_2"]
    # However slow the machine: a start that outlasts the session means that nobody computes.
    kafka = rig.settings.kafka.model_copy(update={"session_timeout_ms": 60_000})
    rig.settings = rig.settings.model_copy(update={"kafka": kafka})
    async with served(rig.settings) as (address, _), connected(address) as stub:
        role = rig.start()
        await stub.ComputeFeatures(request, timeout=TIMEOUT_S)
        # Those that come now are taken by nobody, or taken and not answered.
        suspend(role.process.pid)
        asked = [
            asyncio.ensure_future(stub.ComputeFeatures(request, timeout=2 * TIMEOUT_S))
            for _ in range(20)
        ]
        await asyncio.sleep(0.2)
        role.kill()
        await asyncio.to_thread(rig.start)
        for answer in await asyncio.gather(*asked):
            assert np.array(answer.features.values).tobytes() == expected.tobytes()
