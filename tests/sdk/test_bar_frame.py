import pyarrow as pa
import pytest

from mystocks.sdk import BarFrame, BridgeError
from mystocks.v1.market_pb2 import BarBlock

_TIME = 1_362_171_600_000_000_001
_NAN = float("nan")


def _block(**changes) -> BarBlock:
    fields = {
        "interval": "1m",
        "symbols": ["AAPL", "IBM"],
        "symbol_index": [1, 0],
        "start_time_ns": [_TIME, _TIME + 1],
        "end_time_ns": [_TIME + 60, _TIME + 61],
        "open": [1.0, 2.0],
        "high": [3.0, 4.0],
        "low": [0.5, 0.25],
        "close": [1.5, 2.5],
        "volume": [10.0, 20.0],
        "amount": [15.0, _NAN],
        "trades": [3, -1],
        "revision": [0, 2],
    }
    return BarBlock(**(fields | changes))


def test_rows_have_none_where_something_is_not_known():
    first, second = BarFrame(_block())
    assert first == ("IBM", _TIME, _TIME + 60, 1.0, 3.0, 0.5, 1.5, 10.0, 15.0, 3, 0)
    assert second == ("AAPL", _TIME + 1, _TIME + 61, 2.0, 4.0, 0.25, 2.5, 20.0, None, None, 2)


def test_the_table_has_the_rows_and_nanoseconds():
    frame = BarFrame(_block())
    table = frame.to_arrow()
    assert table["symbol"].to_pylist() == ["IBM", "AAPL"]
    assert table["start_time"].cast(pa.int64()).to_pylist() == [_TIME, _TIME + 1]
    assert table["event_time"].equals(table["end_time"])
    assert table["amount"].to_pylist() == [15.0, None]
    assert table["trades"].to_pylist() == [3, None]
    assert frame.to_pandas()["close"].tolist() == frame.to_polars()["close"].to_list() == [1.5, 2.5]
    assert repr(frame) == "2 bars of 1m, 2 symbols"


def test_no_bars_are_a_frame_too():
    frame = BarFrame(BarBlock(interval="1m"))
    assert (len(frame), list(frame), frame.to_arrow().num_rows) == (0, [], 0)


@pytest.mark.parametrize("change", [{"close": [1.0]}, {"symbol_index": [0, 2]}, {"trades": []}])
def test_columns_that_do_not_fit_are_an_error(change):
    with pytest.raises(BridgeError, match="different versions"):
        BarFrame(_block(**change))
