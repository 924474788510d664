"""A Python client without generated code: features on demand, the table, refusals."""

import math

import grpc
import pytest

from tests.clients.reflected import (
    field_violations,
    now_ns,
    prices,
    rows_of,
    send_and_drain,
    ticks_of,
)

pytestmark = pytest.mark.kafka


def test_compute_over_own_rows(client):
    close = prices(60)
    times = [10**18 + i * 60 * 10**9 for i in range(60)]
    answer = client.call(
        "RealTimeService/ComputeFeatures",
        features=["sma_5", "rsi_14", "macd_5_35_5"],
        rows={"close": close, "event_time_ns": times},
    )
    rows = rows_of([answer.features])
    assert not answer.features.HasField("first_row")
    assert [(row.event_time_ns, row.price) for row in rows] == list(zip(times, close, strict=True))
    assert rows[3].values["sma_5"] is None
    for i in range(4, 60):
        average = math.fsum(close[i - 4 : i + 1]) / 5
        assert math.isclose(rows[i].values["sma_5"], average, rel_tol=1e-12)
    assert {"rsi_14", "macd_5_35_5", "macd_5_35_5_signal"} < set(rows[-1].values)
    newest = client.call(
        "RealTimeService/ComputeFeatures",
        features=["sma_5", "rsi_14", "macd_5_35_5"],
        rows={"close": close, "event_time_ns": times},
        last=2,
    )
    assert rows_of([newest.features]) == rows_renumbered(rows[-2:])


def rows_renumbered(rows):
    return [row._replace(row=i) for i, row in enumerate(rows)]


def test_compute_over_the_log_gives_the_rows_that_were_streamed_bit_for_bit(client, symbol):
    ticks = ticks_of(symbol, prices(120), now_ns())
    streamed = send_and_drain(client, ticks[:70], ticks[70:]).rows
    names = ["sma_20", "ema_26", "rsi_14"]
    expected = [
        (row.event_time_ns, row.price, {name: row.values[name] for name in names})
        for row in streamed
    ]
    assert len(expected) == 120

    def computed(**request):
        answer = client.call(
            "RealTimeService/ComputeFeatures", symbol=symbol, features=names, **request
        )
        return [(r.event_time_ns, r.price, r.values) for r in rows_of([answer.features])]

    assert computed() == expected
    assert computed(last=5) == expected[-5:]
    middle = {
        "start_ns": ticks[40]["event_time_ns"],
        "end_ns": ticks[60]["event_time_ns"],
    }
    assert computed(range=middle) == expected[40:60]


@pytest.mark.parametrize(
    ("method", "request_", "code", "text", "field"),
    [
        (
            "RealTimeService/ComputeFeatures",
            {"features": ["smma_20"], "rows": {"close": [1.0] * 30}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "rsi",
            "features",
        ),
        (
            "RealTimeService/ComputeFeatures",
            {"features": ["sma_20"], "rows": {"close": [1.0] * 29 + [-1.0]}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "close",
            "rows.close",
        ),
        (
            "RealTimeService/ComputeFeatures",
            {"features": ["sma_50"], "rows": {"close": [1.0] * 30}},
            grpc.StatusCode.FAILED_PRECONDITION,
            "50",
            None,
        ),
        (
            "RealTimeService/ComputeFeatures",
            {"features": ["sma_20"], "symbol": "NEVER.SENT"},
            grpc.StatusCode.NOT_FOUND,
            "NEVER.SENT",
            None,
        ),
        (
            "RealTimeService/GetFeatures",
            {"symbols": ["no spaces"]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "no spaces",
            "symbols",
        ),
    ],
)
def test_bad_request_is_answered_with_its_code_and_field(
    client, method, request_, code, text, field
):
    with pytest.raises(grpc.RpcError) as refused:
        client.call(method, **request_)
    assert refused.value.code() is code, refused.value.details()
    assert text in refused.value.details()
    if field is not None:
        fields = [name for name, _ in field_violations(refused.value)]
        assert any(name.startswith(field) for name in fields), fields


@pytest.mark.parametrize("method", ["BacktestService/ListBacktests", "MLService/ListModels"])
def test_service_that_is_not_there_yet_says_so(client, method):
    with pytest.raises(grpc.RpcError) as refused:
        client.call(method)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert method.partition("/")[2] in refused.value.details()


def test_get_features_has_the_latest_row_and_lists_unknown_symbols(client, symbol):
    ticks = ticks_of(symbol, prices(60), now_ns())
    last = send_and_drain(client, ticks).rows[-1]

    def latest(**request):
        return client.call("RealTimeService/GetFeatures", **request)

    request = {"symbols": [symbol, "NEVER.SENT"]}
    # The table is written a moment after the row is in the topic.
    for _ in range(500):
        answer = latest(**request)
        if [row.event_time_ns for row in rows_of([answer.features])] == [last.event_time_ns]:
            break
    assert list(answer.unknown_symbols) == ["NEVER.SENT"]
    [row] = rows_of([answer.features])
    assert (row.symbol, row.price, row.values) == (symbol, last.price, last.values)
    [row] = rows_of([latest(symbols=[symbol], names=["rsi_14"]).features])
    assert row.values == {"rsi_14": last.values["rsi_14"]}
