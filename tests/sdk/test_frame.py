import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mystocks import FeatureFrame
from mystocks.sdk import BridgeError, MissingLibraryError
from mystocks.v1.market_pb2 import FeatureBlock, RowPosition
from schemas.errors import InvalidInputError

_TIME = 1_362_171_600_000_000_001
_NAN = float("nan")


def _block(rows=3, **changes) -> FeatureBlock:
    fields = {
        "feature_set": "ticks",
        "set_hash": "abc",
        "names": ["sma_2", "rsi_14"],
        "symbols": ["AAPL", "IBM"],
        "symbol_index": [i % 2 for i in range(rows)],
        "event_time_ns": [_TIME + i for i in range(rows)],
        "prices": [100.0 + i for i in range(rows)],
        "values": [*([_NAN] * min(rows, 1)), *(float(i) for i in range(1, 2 * rows))],
        "first_row": RowPosition(partition=3, row=10),
    }
    return FeatureBlock(**(fields | changes))


def test_rows_carry_identity_values_and_nulls():
    rows = list(FeatureFrame(_block()))
    assert rows[0] == ("AAPL", _TIME, 100.0, {"sma_2": None, "rsi_14": 3.0}, 3, 10)
    assert rows[2] == ("AAPL", _TIME + 2, 102.0, {"sma_2": 2.0, "rsi_14": 5.0}, 3, 12)
    assert [row.row for row in FeatureFrame(_block(row_offset=[0, 4, 9]))] == [10, 14, 19]


def test_a_frame_is_indexed_and_cut_like_a_sequence():
    frame = FeatureFrame(_block(5))
    assert frame[-1] == frame[4] == list(frame)[4]
    assert list(frame.part(1, 3)) == list(frame)[1:3]
    assert list(frame.part(1).part(2)) == list(frame)[3:]
    assert list(frame.take([0, 3]).take([1])) == [frame[3]]
    assert frame.take([1, 4]).rows == [11, 14]
    with pytest.raises(IndexError):
        frame[5]


def test_features_can_be_chosen_and_ordered():
    frame = FeatureFrame(_block(), ["rsi_14"])
    assert frame[0].values == {"rsi_14": 3.0}
    assert frame.to_arrow().column_names == ["symbol", "event_time", "price", "rsi_14"]
    assert frame.part(1)[0].values == {"rsi_14": 4.0}
    with pytest.raises(InvalidInputError, match=r"sma_2, rsi_14.*'sma_3'"):
        FeatureFrame(_block(), ["sma_3"])


def test_arrow_pandas_and_polars_hold_the_same():
    frame = FeatureFrame(_block()).part(0, 2)
    table = frame.to_arrow()
    assert table.schema.field("event_time").type == pa.timestamp("ns", "UTC")
    assert table["event_time"].cast(pa.int64()).to_pylist() == [_TIME, _TIME + 1]
    assert table["symbol"].to_pylist() == ["AAPL", "IBM"]
    assert table["sma_2"].to_pylist() == [None, 1.0]
    pandas = frame.to_pandas()
    assert pandas["rsi_14"].tolist() == [3.0, 4.0]
    assert pandas["sma_2"].isna().tolist() == [True, False]
    polars = frame.to_polars()
    assert polars["sma_2"].to_list() == [None, 1.0]
    assert polars["symbol"].cast(str).to_list() == ["AAPL", "IBM"]


def test_rows_without_times_index_or_identity_are_those_of_one_symbol():
    block = _block(symbols=["AAPL"], symbol_index=[], event_time_ns=[])
    block.ClearField("first_row")
    frame = FeatureFrame(block)
    assert frame[1] == ("AAPL", 0, 101.0, {"sma_2": 1.0, "rsi_14": 4.0}, -1, -1)
    assert frame.to_arrow()["event_time"].null_count == 3
    assert frame.to_arrow()["symbol"].to_pylist() == ["AAPL"] * 3
    assert frame.partition == -1


@pytest.mark.parametrize(
    "changes",
    [
        {"values": [1.0]},
        {"symbol_index": [0, 1, 2]},
        {"symbol_index": [0]},
        {"prices": [1.0]},
        {"row_offset": [1]},
        {"symbols": []},
    ],
)
def test_a_block_whose_columns_do_not_fit_is_refused(changes):
    with pytest.raises(BridgeError, match="columns"):
        FeatureFrame(_block(**changes))


def test_a_frame_prints_as_a_table(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = repr(FeatureFrame(_block(3))).splitlines()
    assert lines[0].split() == ["symbol", "event_time", "price", "sma_2", "rsi_14"]
    assert lines[1].split() == ["AAPL", "2013-03-01", "21:00:00", "100", "null", "3"]
    assert lines[-1] == "3 rows of 2 features"
    assert len({len(line) for line in lines[:-1]}) == 1
    long = repr(FeatureFrame(_block(100))).splitlines()
    assert len(long) == 1 + 5 + 1 + 5 + 1
    assert "119" not in long[6]
    monkeypatch.setenv("COLUMNS", "50")
    assert "rsi_14" not in repr(FeatureFrame(_block(3)))
    empty = repr(FeatureFrame(_block(0), unknown_symbols=["X", "Y"]))
    assert empty == "0 rows of 2 features, without any: X, Y"


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_named_with_its_remedy(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingLibraryError, match=f"pip install {library}"):
        getattr(FeatureFrame(_block()), f"to_{library}")()


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=12),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_rows_and_arrow_agree_for_any_values_and_cut(values, start, stop):
    count = len(values)
    block = _block(count, values=[v for k in range(2) for v in (row[k] for row in values)])
    frame = FeatureFrame(block).part(start, stop)
    table = frame.to_arrow()
    assert len(table) == len(frame) == len(range(count)[start:stop])
    for name in ("sma_2", "rsi_14"):
        assert table[name].to_pylist() == [row.values[name] for row in frame]
    assert table["price"].to_pylist() == [row.price for row in frame]
