from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mystocks.sdk.columns import tick_table
from mystocks.sdk.tick import Tick, check_tick, time_to_ns
from schemas.errors import InvalidInputError

_TIME = 1_362_171_600_000_000_000


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"symbol": ""}, "symbol is empty"),
        ({"symbol": "A B"}, "symbol"),
        ({"symbol": "A" * 33}, "symbol"),
        ({"symbol": 7}, "symbol is 7"),
        ({"event_time_ns": 1_362_171_600}, "looks like seconds"),
        ({"event_time_ns": 1_362_171_600_000}, "looks like milliseconds"),
        ({"event_time_ns": 1.5e18}, "event_time_ns"),
        ({"event_time_ns": 2**63}, "event_time_ns"),
        ({"price": 0.0}, "price is 0"),
        ({"price": float("nan")}, "price is NaN"),
        ({"price": float("inf")}, "price is inf"),
        ({"price": "12"}, "price is '12'"),
        ({"price": True}, "price is True"),
        ({"size": -1.0}, "size is -1"),
        ({"bid": float("inf")}, "bid is inf"),
        ({"sequence": -1}, "sequence is -1"),
    ],
)
def test_a_bad_field_is_refused_by_name_for_one_tick_and_for_a_table(changed, named):
    values = {"symbol": "AAPL", "event_time_ns": _TIME, "price": 430.47, "size": 1.0} | changed
    with pytest.raises(InvalidInputError, match="tick 3") as one:
        check_tick(Tick(**values), "tick 3")
    assert named in str(one.value)
    typed = all(
        isinstance(values[name], kind)
        for name, kind in (("symbol", str), ("event_time_ns", int), ("price", float))
    )
    if typed and type(values["price"]) is float and values["event_time_ns"] < 2**63:
        good = {"symbol": "AAPL", "event_time_ns": _TIME, "price": 430.47, "size": 1.0}
        columns = {name: [good.get(name), values[name]] for name in values}
        with pytest.raises(InvalidInputError, match="row 1") as many:
            tick_table(columns)
        assert named in str(many.value)


def test_numbers_of_other_kinds_become_plain_ones():
    tick = check_tick(Tick("AAPL", np.int64(_TIME), np.float32(1.5), 3), "here")
    assert [type(value) for value in tick[:4]] == [str, int, float, float]


@given(
    st.datetimes(
        min_value=datetime(1974, 1, 1),
        max_value=datetime(2200, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone.max]),
    )
)
def test_any_time_becomes_exact_nanoseconds(time):
    assert time_to_ns(time) == pd.Timestamp(time).as_unit("ns").value


def test_a_time_without_zone_is_refused():
    with pytest.raises(InvalidInputError, match="time zone"):
        time_to_ns(datetime(2020, 1, 1))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"symbol": ["A"], "price": [1.0]}, "column event_time_ns"),
        ({"symbol": ["A"], "event_time_ns": [_TIME], "price": [1.0], "px": [1]}, "'px'"),
        ({"symbol": ["A"], "event_time_ns": [_TIME], "price": ["1"]}, "price"),
        ({"symbol": [1], "event_time_ns": [_TIME], "price": [1.0]}, "symbol"),
        ({"symbol": ["A"], "event_time_ns": [1.5], "price": [1.0]}, "event_time_ns"),
        ({"symbol": ["A", None], "event_time_ns": [_TIME] * 2, "price": [1.0] * 2}, "row 1"),
        ({"symbol": ["A"], "event_time_ns": [_TIME, _TIME], "price": [1.0]}, "equal length"),
        ({"symbol": ["A"], "event_time_ns": [datetime(2020, 1, 1)], "price": [1.0]}, "time zone"),
    ],
)
def test_bad_columns_are_refused_by_name(columns, named):
    with pytest.raises(InvalidInputError, match=named):
        tick_table(columns)


def test_a_data_frame_is_taken_with_its_times_and_absent_values():
    frame = pd.DataFrame(
        {
            "symbol": pd.Categorical(["AAPL", "IBM"]),
            "event_time_ns": pd.to_datetime(["2013-03-01 21:00", "2013-03-01 21:00"], utc=True),
            "price": [430, 202],
            "bid": [float("nan"), 202.5],
        }
    )
    table = tick_table(frame)
    assert table.column_names == ["symbol", "event_time_ns", "price", "bid"]
    assert table["event_time_ns"].to_pylist() == [_TIME, _TIME]
    assert table["bid"].to_pylist() == [None, 202.5]
    assert table.schema.field("symbol").type == pa.utf8()
