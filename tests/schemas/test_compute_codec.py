"""Requests for features: what is accepted, what is said of the rest, and the answer's bytes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mystocks.v1.market_pb2 import FeatureBlock, OhlcvRows, TimeRange
from mystocks.v1.realtime_pb2 import ComputeFeaturesRequest, ComputeFeaturesResponse
from schemas.compute import ComputedRows
from schemas.compute_codec import decode_failure, encode_answer, encode_failure, parse_request
from schemas.packed import packed_field
from schemas.requests import Code, RequestFailedError
from schemas.settings import ComputeSettings

NOW = 1_700_000_000_000_000_000
BOUNDS = ComputeSettings(max_rows=5, max_features=3)


def parse(rows: dict | None = None, **fields: object):
    fields = {"features": ["sma_2"], **fields}
    if rows is not None:
        fields["rows"] = OhlcvRows(**rows)
    return parse_request(ComputeFeaturesRequest(**fields).SerializeToString(), BOUNDS)


def test_columns_come_out_as_they_went_in():
    request = parse(
        {"close": [1.5, 2.5], "volume": [0.0, 3.0], "event_time_ns": [NOW, NOW]},
        symbol="AAPL",
        profile="cn",
        range=TimeRange(start_ns=NOW),
        last=7,
    )
    assert request.features == ("sma_2",)
    assert (request.symbol, request.profile, request.last) == ("AAPL", "cn", 7)
    assert (request.start_ns, request.end_ns) == (NOW, None)
    assert request.rows.event_time_ns.tolist() == [NOW, NOW]
    columns = {name: values.tolist() for name, values in request.rows.columns.items()}
    assert columns == {"close": [1.5, 2.5], "volume": [0.0, 3.0]}


def test_without_rows_the_log_is_meant_and_the_profile_is_talibs():
    request = parse(symbol="600000.SH")
    assert request.rows is None
    assert request.profile == "talib"
    assert (request.start_ns, request.end_ns, request.last) == (None, None, 0)


REFUSED = {
    "no feature": ({"features": [], "symbol": "A"}, "features"),
    "too many features": ({"features": ["a", "b", "c", "d"], "symbol": "A"}, "features"),
    "an endless feature name": ({"features": ["a", "b" * 65], "symbol": "A"}, "features[1]"),
    "neither symbol nor rows": ({}, "symbol"),
    "a malformed symbol": ({"symbol": "A B"}, "symbol"),
    "a malformed symbol with rows": ({"symbol": "A" * 33, "rows": {"close": [1]}}, "symbol"),
    "a range that ends first": (
        {"symbol": "A", "range": TimeRange(start_ns=NOW, end_ns=NOW)},
        "range",
    ),
    "a range over rows without times": (
        {"rows": {"close": [1]}, "range": TimeRange(end_ns=NOW)},
        "rows.event_time_ns",
    ),
    "empty rows": ({"rows": {}}, "rows.close"),
    "rows without close": ({"rows": {"open": [1.0]}}, "rows.close"),
    "too many rows": ({"rows": {"close": [1.0] * 6}}, "rows.close"),
    "a short column": ({"rows": {"close": [1, 2], "high": [1]}}, "rows.high"),
    "a long column": ({"rows": {"close": [1], "volume": [1, 2]}}, "rows.volume"),
    "too few times": ({"rows": {"close": [1, 2], "event_time_ns": [NOW]}}, "rows.event_time_ns"),
    "seconds": ({"rows": {"close": [1], "event_time_ns": [NOW // 10**9]}}, "rows.event_time_ns[0]"),
    "falling times": (
        {"rows": {"close": [1, 2, 3], "event_time_ns": [NOW, NOW + 1, NOW]}},
        "rows.event_time_ns[2]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_acceptable_is_refused_and_the_field_named(case):
    fields, field = REFUSED[case]
    with pytest.raises(RequestFailedError, match="expected") as failure:
        parse(**fields)
    assert failure.value.code == Code.INVALID_ARGUMENT
    assert failure.value.field == field
    assert f"({field})" in str(failure.value)


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, 0.0])
def test_numbers_are_finite_and_prices_above_zero(column, bad):
    rows = {"close": [1.0, 2.0, 3.0]} | {column: [1.0, bad, bad]}
    if (column, bad) == ("volume", 0.0):
        assert parse(rows).rows.columns["volume"].tolist() == [1.0, 0.0, 0.0]
        return
    with pytest.raises(RequestFailedError, match="finite") as failure:
        parse(rows)
    assert failure.value.field == f"rows.{column}[1]"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(value):
    code = Code.INVALID_ARGUMENT
    try:
        parse_request(value, BOUNDS)
    except RequestFailedError as error:
        code = error.code
    assert code == Code.INVALID_ARGUMENT


FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.integers(0, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=n, max_size=n),
            st.lists(FLOATS, min_size=n, max_size=n),
            st.lists(st.lists(FLOATS, min_size=n, max_size=n), min_size=1, max_size=3),
        )
    )
)
def test_an_answer_is_what_protobuf_itself_would_write(columns):
    times, prices, values = columns
    names = [f"f{k}" for k in range(len(values))]
    rows = ComputedRows(
        names, "AAPL", np.array(times, np.int64), np.array(prices), np.array(values, np.float64)
    )
    expected = ComputeFeaturesResponse(
        features=FeatureBlock(
            names=names,
            symbols=["AAPL"],
            symbol_index=[0] * len(times),
            event_time_ns=times,
            prices=prices,
            values=[value for column in values for value in column],
        )
    )
    answer = ComputeFeaturesResponse.FromString(encode_answer(rows))
    assert answer.SerializeToString() == expected.SerializeToString()


def test_a_long_column_has_a_length_of_several_bytes():
    values = np.arange(5_000, dtype=np.float64)
    number = FeatureBlock.DESCRIPTOR.fields_by_name["values"].number
    block = FeatureBlock.FromString(b"".join(packed_field(number, values)))
    assert np.array_equal(np.array(block.values), values)


@pytest.mark.parametrize(
    "error",
    [
        RequestFailedError(Code.NOT_FOUND, "expected a symbol", field="symbol"),
        RequestFailedError(Code.RESOURCE_EXHAUSTED, "expected room", retry_after_s=0.25),
        RequestFailedError(Code.UNAVAILABLE, "expected a broker", retry_after_s=0.0),
    ],
)
def test_a_failure_survives_its_bytes(error):
    assert vars(decode_failure(encode_failure(error))) == vars(error)


def test_an_endless_message_is_cut():
    assert len(str(RequestFailedError(Code.INTERNAL, "x" * 10**6))) == 1500
