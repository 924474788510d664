from datetime import UTC, date, datetime

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mystocks.sdk.bridge.ohlcv import ohlcv_rows
from schemas.errors import InvalidInputError

_TIMES = [datetime(2024, 1, day, tzinfo=UTC) for day in (2, 3)]
_NS = [1_704_153_600_000_000_000, 1_704_240_000_000_000_000]
_COLUMNS = {"event_time": _TIMES, "open": [1, 2], "close": [1.5, 2.5]}


@pytest.mark.parametrize(
    "data",
    [
        _COLUMNS,
        pa.table(_COLUMNS),
        pa.RecordBatch.from_pydict(_COLUMNS),
        pd.DataFrame(_COLUMNS),
        pl.DataFrame(_COLUMNS),
        pd.DataFrame(
            {"Open": [1, 2], "Close": [1.5, 2.5], "Dividends": ["-", "-"]},
            index=pd.DatetimeIndex(_TIMES, name="Date"),
        ),
        {"event_time_ns": _NS, "open": [1, 2], "close": [1.5, 2.5]},
        {"event_time": [date(2024, 1, 2), date(2024, 1, 3)], "open": [1, 2], "close": [1.5, 2.5]},
    ],
    ids=["mapping", "table", "batch", "pandas", "polars", "pandas index", "integers", "dates"],
)
def test_rows_of_any_kind_become_one_message(data):
    rows = ohlcv_rows(data)
    assert list(rows.event_time_ns) == _NS
    assert list(rows.open) == [1.0, 2.0]
    assert list(rows.close) == [1.5, 2.5]
    assert not rows.volume


@pytest.mark.parametrize(
    "data",
    [[1.5, 2.5], (1.5, 2.5), pd.Series([1.5, 2.5]), pl.Series([1.5, 2.5]), pa.array([1.5, 2.5])],
    ids=["list", "tuple", "pandas", "polars", "arrow"],
)
def test_a_sequence_of_numbers_is_the_close(data):
    assert list(ohlcv_rows(data).close) == [1.5, 2.5]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"price": [1.0]}, "close"),
        ({"close": ["x"]}, "close"),
        ({"close": [1.0, None]}, r"close, row 1"),
        ({"close": [1.0], "high": [1.0, 2.0]}, "equal length"),
        ({"close": [1.0], "Close": [1.0]}, "twice"),
        ({"close": [1.0], "event_time": [datetime(2024, 1, 2)]}, r"time zone.*event_time"),
        ({"close": [1.0], "event_time": ["2024"]}, "event_time"),
        ({"close": [1.0], "event_time": [None]}, "event_time"),
        ({"close": [1.0], "event_time": [date(9999, 1, 1)]}, "event_time"),
        (7, "data"),
    ],
)
def test_rows_that_are_not_acceptable_are_named(data, named):
    with pytest.raises(InvalidInputError, match=named):
        ohlcv_rows(data)
