import asyncio
import threading
from datetime import UTC, datetime

import grpc
import pandas as pd
import pyarrow as pa
import pytest

from mystocks import AsyncClient, Client, Tick
from mystocks.sdk import (
    DeliveryError,
    InvalidRequestError,
    OverloadedError,
    Position,
    StreamInterruptedError,
)
from mystocks.sdk.bridge import stream_core
from mystocks.v1.market_pb2 import NextPosition, ResumeToken
from mystocks.v1.realtime_pb2 import StreamInterrupted
from schemas.errors import InvalidInputError
from tests.sdk.fake_bridge import TOPIC_ID, details, retry_info, ticks

_TIME = 1_362_171_600_000_000_000
Code = grpc.StatusCode


def _sent(bridge):
    """Ticks of all requests, in the order they came."""
    return [
        (tick.symbol, tick.event_time_ns, tick.price)
        for request in bridge.requests
        if request is not None
        for tick in (request.batch.ticks if request.HasField("batch") else [])
    ]


def test_ticks_go_out_in_order_and_their_rows_come_back(bridge, client):
    sent = ticks(50)
    with client.stream() as stream:
        for symbol, time, price in sent:
            stream.send(symbol, time, price, size=2)
        stream.close()
        rows = list(stream)
    assert _sent(bridge) == sent
    assert len(bridge.requests) < 25, "ticks sent together travel together"
    assert (stream.sent, stream.acknowledged, stream.refused) == (50, 50, ())
    assert sorted((r.symbol, r.event_time_ns, r.price) for r in rows) == sorted(sent)
    assert {(r.partition, r.row) for r in rows} == bridge.identities()
    assert rows[-1].values["double"] == 2 * rows[-1].price
    assert set(stream.acknowledged_offsets) == {0, 1}
    assert Position.parse(stream.position).topic_id == TOPIC_ID


def test_every_field_of_a_tick_arrives(bridge, client):
    when = datetime(2024, 1, 2, tzinfo=UTC)
    with client.stream() as stream:
        stream.send("A", when, 3, 4, bid=5, ask=6, sequence=7, volume=8, amount=9)
    (tick,) = bridge.requests[-1].batch.ticks
    values = (tick.price, tick.size, tick.bid, tick.ask, tick.sequence, tick.volume, tick.amount)
    assert tick.event_time_ns == 1_704_153_600_000_000_000
    assert values == (3, 4, 5, 6, 7, 8, 9)


def _send_and_read(stream, sent):
    stream.send_many(sent)
    yield from stream


_COLUMNS = {
    "symbol": ["A", "B"] * 600,
    "event_time_ns": [_TIME + i for i in range(1200)],
    "price": [1.0 + i for i in range(1200)],
}


@pytest.mark.parametrize(
    "data",
    [
        _COLUMNS,
        pa.table(_COLUMNS),
        pd.DataFrame(_COLUMNS),
        [Tick(*row) for row in zip(*_COLUMNS.values(), strict=True)],
        list(zip(*_COLUMNS.values(), strict=True)),
    ],
    ids=["mapping", "table", "pandas", "ticks", "tuples"],
)
def test_many_ticks_of_any_kind_keep_their_order(bridge, client, data):
    with client.stream() as stream:
        stream.send("FIRST", _TIME, 1.0)
        assert stream.send_many(data) == 1200
        stream.send("LAST", _TIME, 1.0)
        stream.flush()
        assert stream.acknowledged == 1202
    expected = list(zip(*_COLUMNS.values(), strict=True))
    assert _sent(bridge) == [("FIRST", _TIME, 1.0), *expected, ("LAST", _TIME, 1.0)]
    assert max(len(r.batch.ticks) for r in bridge.requests if r is not None) <= 500


def test_a_bad_tick_is_refused_by_name_before_it_is_sent(bridge, client):
    with client.stream() as stream:
        for values, field in [
            (("A B", _TIME, 1.0), "symbol"),
            (("A", 7, 1.0), "event_time_ns"),
            (("A", _TIME, -1.0), "price"),
            (("A", _TIME, "1"), "price"),
            (("A", datetime(2024, 1, 1), 1.0), "time zone"),
        ]:
            with pytest.raises(InvalidInputError, match=field):
                stream.send(*values)
        with pytest.raises(InvalidInputError, match=r"price.*row 1"):
            stream.send_many({"symbol": ["A", "A"], "event_time_ns": [_TIME] * 2, "price": [1, 0]})
        stream.send("A", _TIME, 1.0)
    assert (stream.sent, stream.acknowledged) == (1, 1)


def test_ticks_that_the_bridge_refuses_are_told_and_the_stream_goes_on(bridge, client):
    with client.stream(check=False) as stream:
        for price in (1.0, -2.0, 3.0, 0.0):
            stream.send("A", _TIME, price)
        with pytest.raises(InvalidInputError, match="price"):
            stream.send("A", _TIME, None)
        with pytest.raises(InvalidInputError, match="64 bits"):
            stream.send("A", 2**63, 1.0)
        stream.flush()
        assert stream.acknowledged == 2
        stream.send("A", _TIME, 4.0)
    assert stream.acknowledged == 3
    assert [(r.tick.price, r.field) for r in stream.refused] == [(-2.0, "price"), (0.0, "price")]
    assert stream.refused[0].reason == "price is -2, expected a finite number above 0"


def test_leaving_the_block_waits_for_acknowledgements_and_not_for_rows(bridge, client):
    bridge.hold.set()
    threading.Timer(0.1, bridge.hold.clear).start()
    with client.stream() as stream:
        stream.send("A", _TIME, 1.0)
    assert stream.acknowledged == 1
    with pytest.raises(InvalidInputError, match="closed"):
        stream.send("A", _TIME, 1.0)


def test_an_error_in_the_block_is_not_replaced(bridge, client):
    bridge.silent = True
    with pytest.raises(ZeroDivisionError), client.stream() as stream:
        stream.send("A", _TIME, 1 / 0)


def test_missing_acknowledgements_are_counted(bridge):
    bridge.silent = True
    with (
        Client(bridge.address, timeout_s=0.2) as client,
        pytest.raises(DeliveryError, match=r"expected all 1 ticks.*was 0") as caught,
        client.stream() as stream,
    ):
        stream.send("A", _TIME, 1.0)
    assert (caught.value.delivered, caught.value.failed) == (0, 0)


def test_chosen_symbols_come_instead_of_those_sent(bridge, client):
    with client.stream("B", features="triple", timeout_s=10) as stream:
        stream.send_many([("A", _TIME, 1.0), ("B", _TIME, 2.0), ("B", _TIME, 3.0)])
        rows = [next(stream), next(stream)]
    assert [(row.symbol, row.values) for row in rows] == [
        ("B", {"triple": None}),
        ("B", {"triple": 9.0}),
    ]
    assert list(bridge.requests[1].select.symbols) == ["B"]


def test_features_of_the_symbols_sent_can_be_chosen(bridge, client):
    with client.stream(features=["triple"]) as stream:
        stream.send("A", _TIME, 1.0)
        stream.close()
        assert [row.values for row in stream] == [{"triple": None}]
    assert not any(r is not None and r.HasField("select") for r in bridge.requests)
    stream = client.stream(features=["sma_20"])
    with pytest.raises(InvalidInputError, match=r"double, triple.*'sma_20'"), stream:
        list(_send_and_read(stream, [("A", _TIME, 1.0)]))


@pytest.mark.parametrize("symbols", [None, "B"])
def test_rows_that_are_not_wanted_are_not_sent_either(bridge, client, symbols):
    with client.stream(symbols, rows=False) as stream:
        stream.send("A", _TIME, 1.0)
        stream.close()
        assert list(stream) == []
    assert stream.acknowledged == 1
    kinds = [request.WhichOneof("kind") for request in bridge.requests if request is not None]
    assert kinds == ["no_rows", "batch"]


def test_the_iteration_ends_after_the_time_out_and_goes_on_afterwards(bridge, client):
    with client.stream(timeout_s=0.1) as stream:
        assert list(stream) == []
        stream.send("A", _TIME, 1.0)
        while not (rows := list(stream)):
            pass
        assert [row.price for row in rows] == [1.0]
        stream.send("A", _TIME, 2.0)
        while not (frames := list(stream.blocks())):
            pass
        assert [len(frame) for frame in frames] == [1]


def test_a_full_buffer_makes_the_sender_wait(bridge, client, monkeypatch):
    monkeypatch.setattr("mystocks.sdk.bridge.tick_buffer._MAX_WAITING", 10)
    bridge.hold.set()
    threading.Timer(0.2, bridge.hold.clear).start()
    with client.stream(rows=False) as stream:
        most = 0
        for i in range(2000):
            stream.send("A", _TIME + i, 1.0)
            most = max(most, stream._core.buffer.waiting)
    assert most <= 10
    assert stream.acknowledged == 2000


def test_a_sender_that_never_reads_rows_is_told_instead_of_waiting_for_ever(bridge, monkeypatch):
    monkeypatch.setattr("mystocks.sdk.bridge.tick_buffer._MAX_WAITING", 10)
    monkeypatch.setattr(stream_core, "MAX_UNREAD_BYTES", 1)
    # Ticks are held back by a long linger here; by the bridge's flow control in life.
    with Client(bridge.address, timeout_s=0.5) as client, client.stream(linger_ms=900) as stream:
        stream.send("A", _TIME, 1.0)
        stream.flush(3)
        stream.send_many([("A", _TIME, 2.0)] * 10)
        with pytest.raises(InvalidInputError, match="rows=False"):
            stream.flush(0.1)
        with pytest.raises(InvalidInputError, match="rows=False"):
            stream.send("A", _TIME, 2.0)
        assert next(stream).price == 1.0
        stream.flush(3)
        assert (stream.acknowledged, stream.sent) == (11, 11)


def test_a_cut_stream_names_what_was_not_acknowledged_and_where_to_go_on(bridge, client):
    resume = ResumeToken(topic_id=TOPIC_ID, next=[NextPosition(partition=0, row=4, offset=2)])
    fault = details(
        Code.UNAVAILABLE,
        "expected the broker to answer, did not",
        StreamInterrupted(resume=resume, unacknowledged=[2]),
    )
    two = [Tick("A", _TIME, price, sequence=9) for price in (2.0, 3.0)]
    stream = client.stream()
    stream.__enter__()
    stream.send("A", _TIME, 1.0)
    stream.flush()
    bridge.fail("tick", fault)
    with pytest.raises(StreamInterruptedError) as caught:
        list(_send_and_read(stream, two))
    with pytest.raises(StreamInterruptedError, match="2 of 3"):
        stream.__exit__(None, None, None)
    error = caught.value
    assert "expected the broker to answer" in str(error)
    assert "2 of 3 ticks" in str(error)
    assert [(t.price, t.sequence) for t in error.unacknowledged] == [(2.0, 9), (3.0, 9)]
    assert error.position == str(Position("ticks", {0: 3}, {0: 2}, TOPIC_ID))
    assert stream.acknowledged == 1


def test_rows_received_before_the_cut_are_given_first(bridge, client):
    stream = client.stream()
    stream.__enter__()
    stream.send("A", _TIME, 1.0)
    stream.flush()
    bridge.restart()
    assert next(stream).price == 1.0
    with pytest.raises(StreamInterruptedError, match="0 of 1 ticks") as caught:
        next(stream)
    with pytest.raises(StreamInterruptedError):
        stream.send("A", _TIME, 1.0)
    with pytest.raises(StreamInterruptedError):
        stream.__exit__(None, None, None)
    assert caught.value.unacknowledged == []
    rest = client.subscribe(start=caught.value.position, limit=1, timeout_s=2)
    bridge.write([("A", _TIME, 5.0)])
    assert [row.price for row in rest] == [5.0]


def test_a_full_bridge_and_a_refused_stream_are_told_apart(bridge, client):
    full = details(Code.RESOURCE_EXHAUSTED, "expected at most 1000 streams", retry_info(1.5))
    refused = (Code.INVALID_ARGUMENT, "expected a message, was something else")
    bridge.fail("StreamMarketData", full, refused)
    with pytest.raises(OverloadedError) as caught, client.stream() as stream:
        list(stream)
    assert caught.value.retry_after_s == 1.5
    with pytest.raises(InvalidRequestError, match="something else"), client.stream() as stream:
        list(stream)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"symbols": "A B"}, "symbols"),
        ({"set": "other"}, "symbols"),
        ({"linger_ms": -1}, "linger_ms"),
        ({"timeout_s": -1}, "timeout_s"),
        ({"policy": "x"}, "policy"),
    ],
)
def test_options_are_checked(client, arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        client.stream(**arguments)


def test_a_stream_is_used_in_its_block(client):
    stream = client.stream()
    for call in (
        lambda: stream.send("A", _TIME, 1.0),
        lambda: stream.send_many([]),
        lambda: next(stream),
        stream.flush,
    ):
        with pytest.raises(InvalidInputError, match="with"):
            call()


def test_one_thread_sends_while_another_reads(bridge, client):
    seen = []
    with client.stream() as stream:
        reader = threading.Thread(target=lambda: seen.extend(stream))
        reader.start()
        for symbol, time, price in ticks(3000):
            stream.send(symbol, time, price)
        stream.close()
        reader.join(20)
    assert len(seen) == 3000
    assert {(row.partition, row.row) for row in seen} == bridge.identities()


def test_the_asynchronous_form(bridge):
    sent = ticks(30)

    async def main():
        async with AsyncClient(bridge.address, timeout_s=3) as client:
            async with client.stream() as stream:
                for symbol, time, price in sent:
                    await stream.send(symbol, time, price)
                await stream.send_many(_COLUMNS)
                await stream.flush()
                await stream.close()
                rows = [row async for row in stream]
            async with client.stream(rows=False) as silent:
                await silent.send_many([("A", _TIME, 1.0)])
            with pytest.raises(InvalidInputError, match="closed"):
                await silent.send("A", _TIME, 1.0)
        return rows, stream, silent

    rows, stream, silent = asyncio.run(main())
    assert len(rows) == stream.acknowledged == stream.sent == 1230
    assert silent.acknowledged == 1
    assert _sent(bridge)[:30] == sent


def test_both_forms_have_the_same_methods():
    from mystocks.sdk import AsyncMarketStream, AsyncSubscription, MarketStream, Subscription

    def methods(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert methods(AsyncMarketStream) == methods(MarketStream)
    assert methods(Subscription) <= methods(AsyncSubscription)
