from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.bars import (
    NO_TRADES,
    BarColumns,
    Interval,
    bars_schema,
    decode_bars,
    encode_bars,
    rows_per_bars_block,
)
from schemas.errors import InvalidInputError
from schemas.features import MAX_BLOCK_BYTES

NAMES = [f"{i:06d}.SH" for i in range(500)]
MINUTE = 60 * 10**9


def make(n, seed=0, symbols=500):
    rng = np.random.default_rng(seed)
    end = 1_700_000_000 * 10**9 + MINUTE * np.arange(1, n + 1)
    amount = rng.random(n)
    amount[rng.random(n) < 0.3] = np.nan
    trades = rng.integers(0, 99, n)
    trades[rng.random(n) < 0.3] = NO_TRADES
    return BarColumns(
        rng.integers(0, symbols, n).astype(np.int32),
        end - MINUTE,
        end,
        *rng.random((5, n)),
        amount,
        trades,
        rng.integers(0, 3, n).astype(np.int32),
    )


def same(a, b):
    for f in fields(BarColumns):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)
        assert getattr(a, f.name).dtype == getattr(b, f.name).dtype


@settings(max_examples=60)
@given(n=st.integers(0, 60), seed=st.integers(0, 99), symbols=st.integers(1, 500))
def test_a_block_gives_back_its_bars(n, seed, symbols):
    bars = make(n, seed, symbols)
    names, again = decode_bars(encode_bars(NAMES, bars))
    assert [names[code] for code in again.code] == [NAMES[code] for code in bars.code]
    same(replace(again, code=bars.code), bars)


def test_a_block_is_plain_arrow_with_event_time_and_nulls():
    bars = make(50)
    value = encode_bars(NAMES, bars)
    with pa.ipc.open_stream(value) as stream:
        assert stream.schema == bars_schema()
        batch = stream.read_next_batch()
    batch.validate(full=True)
    assert batch["event_time"].equals(batch["end_time"])
    assert batch["amount"].null_count == np.isnan(bars.amount).sum() > 0
    assert batch["trades"].null_count == (bars.trades == NO_TRADES).sum() > 0


def test_the_dictionary_holds_only_the_symbols_in_use():
    bars = replace(make(3), code=np.array([400, 7, 400], np.int32))
    names, again = decode_bars(encode_bars(NAMES, bars))
    assert names == [NAMES[7], NAMES[400]]
    assert again.code.tolist() == [1, 0, 1]


def test_a_full_block_of_longest_symbols_stays_below_the_limit():
    n = rows_per_bars_block()
    names = [f"{i:032d}" for i in range(n)]
    bars = replace(make(n), code=np.arange(n, dtype=np.int32))
    assert MAX_BLOCK_BYTES * 0.9 < len(encode_bars(names, bars)) <= MAX_BLOCK_BYTES


def test_bars_of_another_writer_are_read():
    time = pa.array([1_700_000_000], pa.timestamp("s", "UTC"))
    table = pa.table(
        {
            "symbol": ["A"],
            "start_time": time,
            "end_time": time,
            **{name: pa.array([1.5], pa.float32()) for name in ("open", "high", "low", "close")},
            "volume": [7],
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
        stream.write_table(table)
    names, bars = decode_bars(sink.getvalue().to_pybytes())
    assert (names, bars.volume.tolist(), bars.trades.tolist()) == (["A"], [7.0, 7.0], [-1, -1])
    assert bars.end_time.tolist() == [1_700_000_000 * 10**9] * 2


@pytest.mark.parametrize("value", [b"", b"no", b"\xff" * 40, encode_bars(NAMES, make(9))[:300]])
def test_other_bytes_are_refused_with_a_reason(value):
    with pytest.raises(InvalidInputError, match="expected a block of bars"):
        decode_bars(value)


def test_parts_can_be_joined_and_cut():
    bars = make(20)
    same(BarColumns.concatenate([bars.take(slice(0, 7)), bars.take(slice(7, None))]), bars)
    assert len(BarColumns.empty()) == 0
    assert bars.take(bars.code >= 0).code.tolist() == bars.code.tolist()


@pytest.mark.parametrize(
    ("text", "name", "seconds"),
    [("1s", "1s", 1), ("60s", "1m", 60), ("90m", "90m", 5400), ("1H", "1h", 3600), ("1d", "1d", 0)],
)
def test_intervals_have_one_name(text, name, seconds):
    interval = Interval.parse(text)
    assert interval.name == name
    assert interval.is_session == (name == "1d")
    assert interval.ns == (seconds or 86_400) * 10**9


@pytest.mark.parametrize("text", ["", "m", "0m", "7m", "2d", "1w", "24h", "1.5m", "-1m"])
def test_other_intervals_are_refused(text):
    with pytest.raises(InvalidInputError, match="interval"):
        Interval.parse(text)
