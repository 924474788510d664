import asyncio
import json
import os
import subprocess
import sys
import threading

import grpc
import pytest

from mystocks import AsyncClient, Client
from mystocks.sdk import (
    BridgeError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
)
from mystocks.sdk.bridge.retry import Backoff
from schemas.errors import ConfigurationError, InvalidInputError, MyStocksError, UnavailableError
from tests.sdk.fake_bridge import details, retry_info, ticks, violation

Code = grpc.StatusCode


def test_latest_gives_one_row_per_symbol_and_names_the_unknown(bridge, client):
    bridge.write(ticks(20))
    frame = client.latest(["IBM", "NONE"], features="triple")
    assert frame.unknown_symbols == ("NONE",)
    (row,) = frame
    newest = [r for blocks in bridge.blocks for b in blocks for r in b if r[1] == "IBM"][-1]
    assert row == ("IBM", newest[2], newest[3], {"triple": 3 * newest[3]}, -1, -1)
    assert sorted(row.symbol for row in client.latest()) == ["AAPL", "IBM", "MSFT"]
    assert len(client.latest("NONE", features="triple")) == 0


def test_stats_are_plain_values(client):
    stats = client.stats()
    assert (stats.max_streams, stats.streams[0].rows_sent, stats.partitions[0].lag) == (7, 3, 4)


def test_compute_sends_rows_and_gets_a_frame(bridge, client):
    frame = client.compute(["sma_2", "rsi_14"], {"Close": [1.0, 2.0, 3.0], "volume": [1, 2, 3]})
    request = bridge.requests[-1]
    assert list(request.rows.close) == [1.0, 2.0, 3.0]
    assert list(request.rows.volume) == [1.0, 2.0, 3.0]
    assert request.profile == "talib"
    assert frame.names == ("sma_2", "rsi_14")
    assert [row.values["sma_2"] for row in frame] == [None, 2.0, 3.0]
    assert [row.event_time_ns for row in frame] == [0, 0, 0]
    client.compute("sma_2", symbol="AAPL", last=5, profile="cn")
    request = bridge.requests[-1]
    assert (request.symbol, request.last, request.profile) == ("AAPL", 5, "cn")
    assert not request.HasField("rows")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"features": "sma_20"}, "data"),
        ({"features": [], "symbol": "AAPL"}, "features"),
        ({"features": [""], "symbol": "AAPL"}, "features"),
        ({"features": "sma_20", "symbol": "A B"}, "symbols"),
        ({"features": "sma_20", "symbol": "A", "last": -1}, "last"),
        ({"features": "sma_20", "data": {"open": [1.0]}}, "close"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_is_sent(bridge, client, arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        client.compute(**arguments)
    assert not bridge.calls


@pytest.mark.parametrize(
    ("status", "expected", "text"),
    [
        (
            details(
                Code.INVALID_ARGUMENT,
                "expected one of sma, ema, was smaa (features)",
                violation("features", "expected one of sma, ema, was smaa"),
            ),
            InvalidRequestError,
            "expected one of sma, ema",
        ),
        (
            details(Code.INVALID_ARGUMENT, "not so", violation("rows.close[3]", "was nan")),
            InvalidRequestError,
            r"rows.close\[3\]: was nan",
        ),
        ((Code.NOT_FOUND, "expected a known symbol"), NotFoundError, "known symbol"),
        ((Code.FAILED_PRECONDITION, "sma_50 needs 50 rows"), PreconditionError, "50 rows"),
        ((Code.OUT_OF_RANGE, "expected a smaller reply"), InvalidRequestError, "smaller"),
        ((Code.RESOURCE_EXHAUSTED, "narrow the range"), OverloadedError, "narrow"),
        ((Code.INTERNAL, "a bug"), BridgeError, "INTERNAL.*a bug"),
        ((Code.UNIMPLEMENTED, "not built"), BridgeError, "not built"),
    ],
)
def test_a_refusal_is_raised_at_once_by_its_kind(bridge, client, status, expected, text):
    bridge.fail("ComputeFeatures", status)
    with pytest.raises(expected, match=text):
        client.compute("sma_50", symbol="AAPL")
    assert bridge.calls["ComputeFeatures"] == 1


def test_fields_of_a_refusal_can_be_read_by_a_program(bridge, client):
    bridge.fail(
        "ComputeFeatures", details(Code.INVALID_ARGUMENT, "no", violation("features", "was x"))
    )
    with pytest.raises(InvalidRequestError) as caught:
        client.compute("x", symbol="AAPL")
    assert caught.value.fields == {"features": "was x"}


def test_an_idempotent_call_is_tried_again_until_it_succeeds(bridge, client):
    busy = details(Code.RESOURCE_EXHAUSTED, "full", retry_info(0.01))
    bridge.fail("GetFeatures", (Code.UNAVAILABLE, "away"), busy, (Code.UNAVAILABLE, "away"))
    assert len(client.latest()) == 0
    assert bridge.calls["GetFeatures"] == 4


def test_attempts_end_with_the_time_out_and_the_last_reason(bridge):
    bridge.fail("GetFeatures", *[(Code.UNAVAILABLE, "expected Redis, was nothing")] * 100)
    with Client(bridge.address, timeout_s=0.4) as client, pytest.raises(UnavailableError) as caught:
        client.latest()
    assert "expected Redis" in str(caught.value)
    assert 2 <= bridge.calls["GetFeatures"] < 20


def test_a_wait_longer_than_the_time_out_is_not_begun(bridge, client):
    bridge.fail("GetFeatures", details(Code.RESOURCE_EXHAUSTED, "full", retry_info(0.9)))
    with Client(bridge.address, timeout_s=0.5) as hasty, pytest.raises(OverloadedError) as caught:
        hasty.latest()
    assert caught.value.retry_after_s == pytest.approx(0.9)
    assert bridge.calls["GetFeatures"] == 1


def test_backoff_doubles_within_bounds_and_gives_up():
    backoff = Backoff(1000)
    delays = [backoff.failed() for _ in range(10)]
    assert 0.025 <= delays[0] <= 0.05
    assert all(1.0 <= delay <= 2.0 for delay in delays[6:])
    assert backoff.failed(30.0) == 30.0
    assert backoff.failed(1000.0) is None
    backoff.succeeded()
    assert backoff.failed() <= 0.05


def test_an_answer_after_a_restart_of_the_bridge(bridge, client):
    bridge.write(ticks(3))
    assert len(client.latest())
    bridge.restart()
    assert len(client.latest())


def test_nobody_at_the_address_is_said_with_the_address():
    with Client("127.0.0.1:1", timeout_s=0.2) as client:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1.*mystocks up"):
            client.latest()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
            client.subscribe()
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"), client.stream():
            pass


def test_both_forms_of_the_client_have_the_same_calls():
    def calls(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert calls(AsyncClient) - calls(Client) == {"stream_core"}
    assert calls(Client) <= calls(AsyncClient)


def test_the_asynchronous_client(bridge):
    async def main():
        async with AsyncClient(bridge.address) as client:
            bridge_stats = await client.stats()
            frame, computed = await asyncio.gather(
                client.latest(), client.compute("sma_2", [1.0, 2.0])
            )
        with pytest.raises(InvalidInputError, match="closed"):
            await client.stats()
        return bridge_stats.max_streams, len(frame), len(computed)

    assert asyncio.run(main()) == (7, 0, 2)


def test_the_blocking_client_works_where_an_event_loop_runs(bridge):
    async def cell():
        with Client(bridge.address) as client:
            return client.stats().max_streams

    assert asyncio.run(cell()) == 7


def test_one_client_serves_several_threads(bridge, client):
    bridge.write(ticks(20))
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(len(client.latest()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == [3] * 8


def test_a_closed_client_says_so_and_closes_twice(client):
    client.close()
    client.close()
    with pytest.raises(InvalidInputError, match="closed"):
        client.latest()


def test_closing_the_client_ends_what_other_threads_wait_for(bridge):
    ends = []

    def wait(iterator):
        try:
            ends.append(list(iterator))
        except InvalidInputError as error:
            ends.append(str(error))

    client = Client(bridge.address)
    stream = client.stream()
    stream.__enter__()
    threads = [threading.Thread(target=wait, args=[i]) for i in (client.subscribe(), stream)]
    for thread in threads:
        thread.start()
    client.close()
    for thread in threads:
        thread.join(10)
    assert len(ends) == 2
    assert all(end == [] or "closed" in end for end in ends), ends


def test_a_client_that_is_not_closed_does_not_keep_the_program_alive(bridge):
    code = (
        "from mystocks import Client\n"
        f"client = Client({bridge.address!r})\n"
        "rows = client.subscribe()\n"
        "print(client.stats().max_streams)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


def test_the_address_comes_from_argument_setting_or_the_running_stack(
    own_environment, monkeypatch, tmp_path
):
    with pytest.raises(ConfigurationError, match=r"MYSTOCKS_GRPC__ADDRESS.*mystocks up"):
        Client()
    monkeypatch.setenv("MYSTOCKS_DATA_DIR", str(tmp_path))
    (tmp_path / "run").mkdir()
    state = {"pid": os.getpid(), "kafka": None, "grpc": "127.0.0.1:4"}
    (tmp_path / "run" / "state.json").write_text(json.dumps(state))
    clients = [Client()]
    monkeypatch.setenv("MYSTOCKS_GRPC__ADDRESS", "host:5")
    clients += [Client(), Client("other:6")]
    assert [client.address for client in clients] == ["127.0.0.1:4", "host:5", "other:6"]
    for client in clients:
        client.close()


@pytest.mark.parametrize("arguments", [{"address": "nonsense"}, {"timeout_s": 0}])
def test_arguments_of_the_client_are_checked(arguments):
    with pytest.raises(MyStocksError, match=next(iter(arguments))):
        Client(**({"address": "127.0.0.1:1"} | arguments))
