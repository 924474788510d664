"""Blocks of bars as ticks: what is taken, what is refused, and that nothing raises."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import headers
from schemas.bars import BarColumns, encode_bars
from schemas.ticks import SymbolTable
from schemas.ticks.bars_as_ticks import BarTickDecoder

MINUTE = 60 * 10**9
START = 1_700_000_040 * 10**9
NAMES = ["600000.SH", "000001.SZ", "BTC"]


def bars(count=6, **columns) -> BarColumns:
    rng = np.random.default_rng(count)
    close = 100 + np.cumsum(rng.normal(0, 1, count))
    end = START + MINUTE * np.arange(1, count + 1)
    made = BarColumns(
        (np.arange(count) % len(NAMES)).astype(np.int32),
        end - MINUTE,
        end,
        close - 0.5,
        close + 1,
        close - 1,
        close,
        rng.random(count),
        np.full(count, np.nan),
        np.full(count, -1, np.int64),
        np.zeros(count, np.int32),
    )
    return replace(made, **{name: np.asarray(values) for name, values in columns.items()})


def decode(values, symbols=None, **more):
    arguments = {"content_types": None, "timestamps_ms": None} | more
    symbols = SymbolTable(100) if symbols is None else symbols
    return *BarTickDecoder().decode(values, symbols=symbols, **arguments), symbols


def test_a_bar_is_a_tick_of_its_close_at_its_end():
    first, second = bars(6), bars(2)
    ticks, refused, symbols = decode([encode_bars(NAMES, first), encode_bars(NAMES, second)])
    assert refused == []
    whole = BarColumns.concatenate([first, second])
    assert [symbols.names[c] for c in ticks.code] == [NAMES[c] for c in whole.code]
    for name, column in (
        ("event_time", "end_time"), ("price", "close"), ("size", "volume"), ("high", "high"),
        ("low", "low"), ("open", "open"), ("revision", "revision"),
    ):  # fmt: skip
        assert getattr(ticks, name).tolist() == getattr(whole, column).tolist()
        assert getattr(ticks, name).flags.writeable
    assert ticks.message.tolist() == [0] * 6 + [1] * 2
    assert ticks.row.tolist() == [*range(6), 0, 1]
    assert set(ticks.sequence.tolist()) == {-1}
    assert all(np.isnan(getattr(ticks, name)).all() for name in ("bid", "ask", "volume", "amount"))
    assert all(len(getattr(ticks, f.name)) == 8 for f in fields(ticks))


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("close", 0.0, "price is 0"),
        ("open", np.nan, "open is nan"),
        ("high", np.inf, "high is inf"),
        ("low", -1.0, "low is -1.0"),
        ("low", 1e6, "low 1e+06 is above high"),
        ("volume", -1.0, "size is -1"),
        ("volume", np.nan, "size is NaN"),
        ("revision", -1, "revision is -1"),
        ("end_time", 1_700_000_000, "looks like seconds"),
    ],
)
def test_a_bar_that_cannot_be_is_refused_and_the_others_are_not(column, value, says):
    good = bars()
    changed = getattr(good, column).copy()
    changed[2] = value
    ticks, (refusal,), _ = decode([encode_bars(NAMES, replace(good, **{column: changed}))])
    assert len(ticks) == 5
    assert ticks.row.tolist() == [0, 1, 3, 4, 5]
    assert (refusal.message, refusal.rows) == (0, (2,))
    assert refusal.reason.startswith("bar 2: ")
    assert says in refusal.reason


def test_a_bar_far_ahead_of_its_record_is_refused():
    late = START // 10**6 - 2 * 3_600_000
    ticks, (refusal,), symbols = decode(
        [encode_bars(NAMES, bars(2))], timestamps_ms=np.array([late])
    )
    assert (len(ticks), len(symbols)) == (0, 0)
    assert "ahead of the record's timestamp" in refusal.reason
    assert refusal.reason.endswith("(and 1 more)")


def test_symbols_beyond_the_bound_and_malformed_ones_are_refused():
    ticks, (full,), _ = decode([encode_bars(NAMES, bars())], SymbolTable(2))
    assert full.rows == (2, 5)
    assert "features.max_symbols" in full.reason
    assert len(ticks) == 4
    ticks, (odd,), symbols = decode([encode_bars(["A B", "C"], bars(2))])
    assert (len(ticks), symbols.names, odd.rows) == (1, ["C"], (0,))
    assert odd.reason.startswith("bar 0: symbol")


@pytest.mark.parametrize(
    ("value", "content_type", "says"),
    [
        (None, None, "tombstone"),
        (b"", None, "empty"),
        (b'{"symbol":"A"}', None, "expected a block of bars"),
        (b"\xff\xff\xff\xff", headers.CONTENT_JSON, "expected a block of bars"),
        (encode_bars(NAMES, bars())[:-100], None, "Arrow"),
    ],
)
def test_a_message_of_another_kind_is_refused_whole(value, content_type, says):
    good = encode_bars(NAMES, bars())
    ticks, (refusal,), _ = decode([good, value, good], content_types=[None, content_type, None])
    assert len(ticks) == 12
    assert (refusal.message, refusal.rows) == (1, None)
    assert says in refusal.reason


@settings(max_examples=300)
@given(place=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.integers(0, 10**6))
def test_no_bytes_raise(place, byte, cut):
    value = bytearray(encode_bars(NAMES, bars(20)))
    value[place % len(value)] = byte
    if cut % 3 == 0:
        del value[cut % len(value) :]
    ticks, refused, _ = decode([bytes(value)])
    assert len(refused) <= 1
    if refused and refused[0].rows is None:
        assert len(ticks) == 0
    assert (np.isfinite(ticks.price) & (ticks.price > 0) & (ticks.low <= ticks.high)).all()
