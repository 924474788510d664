"""A Python client without generated code: streams of ticks and rows.

It learns the contract from the running server.
"""

import math
from collections import defaultdict

import pytest

from tests.clients.reflected import MarketStream, now_ns, prices, rows_of, send_and_drain, ticks_of

pytestmark = pytest.mark.kafka

DEFAULT_FEATURES = {"sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd", "boll_upper"}


def test_reflection_lists_every_service_of_the_contract(client):
    assert client.services() >= {
        "mystocks.v1.RealTimeService",
        "mystocks.v1.BacktestService",
        "mystocks.v1.MLService",
        "mystocks.v1.JobService",
        "grpc.health.v1.Health",
    }


@pytest.mark.parametrize("service", ["", "mystocks.v1.RealTimeService"])
def test_health_check_says_serving(client, service):
    answer = client.call("grpc.health.v1.Health/Check", service=service)
    serving = answer.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_name["SERVING"]
    assert answer.status == serving.number


def test_single_ticks_and_batches_are_acknowledged_and_come_back_as_rows(client, symbol):
    start = now_ns()
    single = ticks_of(symbol, prices(30), start)
    others = [f"{symbol}-{i}" for i in range(3)]
    mixed = [tick for s in others for tick in ticks_of(s, prices(100, 50.0), start)]
    stream = MarketStream(client)
    numbers = [stream.send(tick=tick) for tick in single]
    batch = stream.send(batch={"ticks": mixed})
    stream.await_acknowledged(330)
    assert [stream.accepted[n] for n in numbers] == [1] * 30
    assert stream.accepted[batch] == 300
    stream.await_rows(330)
    stream.finish()
    assert stream.refused == []

    by_symbol = defaultdict(list)
    for row in stream.rows:
        by_symbol[row.symbol].append(row)
    assert {s: len(rows) for s, rows in by_symbol.items()} == {symbol: 30} | dict.fromkeys(
        others, 100
    )
    sent = [(t["event_time_ns"], t["price"]) for t in single]
    assert [(r.event_time_ns, r.price) for r in by_symbol[symbol]] == sent
    assert set(by_symbol[symbol][0].values) >= DEFAULT_FEATURES
    averages = [row.values["sma_20"] for row in by_symbol[symbol]]
    assert averages[:19] == [None] * 19
    window = [price for _, price in sent]
    for i in range(19, 30):
        assert math.isclose(averages[i], math.fsum(window[i - 19 : i + 1]) / 20, rel_tol=1e-12)


def test_a_row_lies_in_a_block_that_reaches_the_offset_of_its_tick(client, symbol):
    stream = MarketStream(client)
    sent = ticks_of(symbol, prices(5), now_ns())
    numbers = {tick["event_time_ns"]: stream.send(tick=tick) for tick in sent}
    stream.finish()
    assert len(stream.rows) == 5
    for block in stream.blocks:
        for row in rows_of([block]):
            [(partition, offset)] = stream.places[numbers[row.event_time_ns]]
            assert partition == block.first_row.partition == row.partition
            assert block.source_first_offset <= offset <= block.source_last_offset


def test_half_closed_stream_is_drained_to_the_last_row(client, symbol):
    ticks = ticks_of(symbol, prices(2000), now_ns())
    stream = send_and_drain(client, *(ticks[i : i + 500] for i in range(0, 2000, 500)))
    assert sum(stream.accepted.values()) == 2000
    assert [row.event_time_ns for row in stream.rows] == [t["event_time_ns"] for t in ticks]


def test_bad_ticks_are_refused_by_field_and_the_stream_goes_on(client, symbol):
    start = now_ns()
    good = ticks_of(symbol, prices(4), start)
    stream = MarketStream(client)
    stream.send(tick=good[0])
    negative = stream.send(tick=good[1] | {"price": -1.0})
    batch = stream.send(
        batch={"ticks": [good[1], good[2] | {"symbol": "no spaces"}, good[2] | {"size": math.inf}]}
    )
    stream.send(tick=good[3])
    stream.await_acknowledged(6)
    stream.finish()
    refused = {(number, row): reason for number, row, reason in stream.refused}
    assert refused.keys() == {(negative, 0), (batch, 1), (batch, 2)}
    assert "price" in refused[negative, 0]
    assert "symbol" in refused[batch, 1]
    assert "size" in refused[batch, 2]
    expected = [good[i]["event_time_ns"] for i in (0, 1, 3)]
    assert [row.event_time_ns for row in stream.rows] == expected


def test_selection_replaces_the_rows_of_the_symbols_sent_and_may_change(client, symbol):
    other = f"{symbol}-X"
    watching = MarketStream(client)
    watching.send(select={"symbols": [symbol], "names": ["sma_20", "rsi_14"]})
    probe = MarketStream(client)
    start = now_ns()
    # A selection has no acknowledgement of its own; that of a tick sent after it stands for it.
    watching.send(tick=ticks_of(other, [1.0], start)[0])
    watching.await_acknowledged(1)
    probe.send(batch={"ticks": ticks_of(symbol, prices(10), start)})
    watching.await_rows(10)
    assert {row.symbol for row in watching.rows} == {symbol}
    assert set(watching.rows[0].values) == {"sma_20", "rsi_14"}
    watching.send(select={"symbols": [other]})
    watching.send(tick=ticks_of(symbol, [2.0], start + 10**9)[0])
    watching.await_acknowledged(2)
    before = len(watching.rows)
    probe.send(batch={"ticks": ticks_of(other, prices(10), start + 10**9)})
    watching.await_rows(before + 10)
    assert {row.symbol for row in watching.rows[-10:]} == {other}
    assert set(watching.rows[-1].values) >= DEFAULT_FEATURES
    watching.cancel()
    probe.finish()


def test_open_streams_are_listed_with_what_they_did(client, symbol):
    stream = MarketStream(client)
    ticks = ticks_of(symbol, prices(7), now_ns())
    stream.send(batch={"ticks": [*ticks[:6], ticks[6] | {"price": 0.0}]})
    stream.await_acknowledged(7)
    stream.await_rows(6)
    stats = client.call("RealTimeService/GetStreamStats")
    mine = [
        (s.ticks_received, s.ticks_acknowledged, s.ticks_refused, s.rows_sent)
        for s in stats.streams
        if "StreamMarketData" in s.method and s.ticks_refused
    ]
    assert (7, 6, 1, 6) in mine
    assert stats.max_streams >= 1
    assert {p.partition for p in stats.partitions} == set(range(len(stats.partitions)))
    stream.finish()
