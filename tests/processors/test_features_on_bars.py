"""Feature sets on bars: the numbers of `compute` over the same bars, and what corrections do."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from processors.features.compiler import compile_kernel
from processors.features.compute import compute_indicators
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.features.log_ticks import TickCollector
from processors.features.on_demand import OnDemandFeatures
from processors.features.row_rules import RowRules
from processors.indicators.errors import MissingInputError
from schemas.bars import BarColumns, encode_bars
from schemas.compute import ComputeRequest
from schemas.ticks import SymbolTable
from schemas.ticks.bars_as_ticks import BarTickDecoder
from tests.processors.features_rig import Always, Batch, World

MINUTE = 60 * 10**9
START = 1_700_000_040 * 10**9
SYMBOLS = ["600000.SH", "BTC", "AAPL"]
NAMES = ("sma_5", "atr_14", "kdj", "macd", "vwap_10", "obv", "rsi_6")


def make_bars(count: int, seed: int = 0) -> BarColumns:
    """Bars of all symbols, minute by minute."""
    rng = np.random.default_rng(seed)
    rows = count * len(SYMBOLS)
    close = np.round(100 + np.cumsum(rng.normal(0, 0.3, rows)), 2)
    end = START + MINUTE * (1 + np.arange(rows) // len(SYMBOLS))
    high, low = close + rng.integers(0, 9, rows) / 10, close - rng.integers(0, 9, rows) / 10
    return BarColumns(
        np.tile(np.arange(len(SYMBOLS), dtype=np.int32), count),
        end - MINUTE,
        end,
        low,
        high,
        low,
        close,
        rng.integers(0, 1000, rows).astype(float),
        np.full(rows, np.nan),
        np.full(rows, 7, np.int64),
        np.zeros(rows, np.int32),
    )


def blocks(bars: BarColumns, cuts) -> list[bytes]:
    edges = [0, *cuts, len(bars)]
    return [encode_bars(SYMBOLS, bars.take(slice(a, b))) for a, b in pairwise(edges) if b > a]


def with_corrections(bars: BarColumns, rng) -> BarColumns:
    """Some of the bars again, some bars later, with another close."""
    places = np.sort(rng.choice(len(bars) - 10, 20, replace=False))
    again = bars.take(places)
    again = replace(again, close=again.low, revision=np.full(20, 1, np.int32))
    order = np.argsort(np.concatenate([np.arange(len(bars)), places + 9.5]), kind="stable")
    return BarColumns.concatenate([bars, again]).take(order)


def world(bars, kernel_cache, rules=None, cuts=(3, 10, 11, 200), rng=None) -> World:
    features = FeatureSet.parse(NAMES, inputs=BAR_INPUTS, rules=rules)
    kernel = compile_kernel(features, "cpu", kernel_cache)
    made = World(kernel, BarTickDecoder(), blocks(bars, cuts), rng)
    made.run()
    return made


def expected(bars: BarColumns, code: int, kernel_cache) -> dict[str, list]:
    own = bars.take(bars.code == code)
    inputs = {"price": own.close, "high": own.high, "low": own.low, "size": own.volume}
    columns = compute_indicators(NAMES, inputs, "talib", kernel_cache)
    return {name: [None if np.isnan(v) else v for v in vs.tolist()] for name, vs in columns.items()}


def assert_equal(made: World, bars: BarColumns, kernel_cache) -> None:
    rows = made.rows()
    assert len(rows) == len(bars)
    for code, symbol in enumerate(SYMBOLS):
        own = [row for row in rows if row["symbol"] == symbol]
        mine = bars.take(bars.code == code)
        assert [row["event_time"].value for row in own] == mine.end_time.tolist()
        assert [row["price"] for row in own] == mine.close.tolist()
        for name, values in expected(bars, code, kernel_cache).items():
            assert [row[name] for row in own] == values, name


def test_rows_of_bars_are_bit_equal_to_compute_over_the_same_bars(kernel_cache):
    bars = make_bars(120)
    made = world(bars, kernel_cache)
    assert_equal(made, bars, kernel_cache)
    shaken = world(bars, kernel_cache, cuts=range(5, 300, 7), rng=np.random.default_rng(1))
    assert_equal(shaken, bars, kernel_cache)


def test_corrections_of_bars_are_passed_over_and_counted(kernel_cache):
    bars = make_bars(120)
    log = with_corrections(bars, np.random.default_rng(2))
    for rng in (None, np.random.default_rng(3)):
        made = world(log, kernel_cache, cuts=range(5, 370, 11), rng=rng)
        assert_equal(made, bars, kernel_cache)
        assert made.dropped == {"correction": 20}
        assert made.duplicates == 0


def test_corrections_get_rows_where_the_setting_says_so(kernel_cache):
    log = with_corrections(make_bars(120), np.random.default_rng(2))
    made = world(log, kernel_cache, RowRules(every_revision=True))
    assert_equal(made, log, kernel_cache)
    features = [FeatureSet.parse(NAMES, inputs=BAR_INPUTS, rules=r) for r in (None, RowRules())]
    assert features[0].hash == features[1].hash
    assert made.kernel.feature_set.hash != features[0].hash


def test_bars_loaded_twice_are_late_where_lateness_is_on(kernel_cache):
    bars = make_bars(40)
    twice = BarColumns.concatenate([bars, bars])
    made = world(twice, kernel_cache, RowRules(0, 300 * 10**9), cuts=(120,))
    # Only a bar at the very watermark is not behind it.
    assert made.row == 123
    assert [len(rows) for _, rows in made.late] == [117]


def test_an_indicator_of_high_and_low_is_refused_on_ticks(kernel_cache):
    FeatureSet.parse(["atr_14", "kdj"], inputs=BAR_INPUTS)
    with pytest.raises(MissingInputError, match=r"compute it on bars or leave it out"):
        FeatureSet.parse(["atr_14"])


@pytest.mark.parametrize(
    "rules", [None, RowRules(0, 300 * 10**9, True), RowRules(None, 1, False, 1, True)]
)
def test_a_request_over_the_log_has_the_numbers_of_the_live_rows(kernel_cache, rules):
    log = with_corrections(make_bars(120), np.random.default_rng(4))
    made = world(log, kernel_cache, rules, cuts=(100,))

    class Log:
        def read(self, symbol, end_ns, remaining_s):
            collector = TickCollector(
                BarTickDecoder(), lambda: SymbolTable(9), 10**6, inputs=BAR_INPUTS, rules=rules
            )
            return collector.collect([Batch([v], k) for k, v in enumerate(made.log)], symbol)

    on_demand = OnDemandFeatures(Log(), 10**7, kernel_cache, log_inputs=BAR_INPUTS)
    for symbol in SYMBOLS:
        asked = ComputeRequest(
            NAMES, rows=None, profile="talib", symbol=symbol, start_ns=None, end_ns=None, last=0
        )
        answer = on_demand.answer(asked, lambda: 1.0)
        own = [row for row in made.rows() if row["symbol"] == symbol]
        assert answer.event_time_ns.tolist() == [row["event_time"].value for row in own]
        for name, values in zip(answer.names, answer.values, strict=True):
            given = [None if np.isnan(v) else v for v in values.tolist()]
            assert given == [row[name] for row in own], name


def test_a_symbol_that_never_gets_a_row_does_not_shift_the_state_of_others(kernel_cache):
    names = ["A", "B", "CORRECTED", "Y"]
    code = np.array([0, 1, 2, 3, 3, 3, 3], np.int32)
    bars = make_bars(3).take(slice(0, 7))
    bars = replace(bars, code=code, revision=(code == 2).astype(np.int32))
    log = [encode_bars(names, bars.take(slice(k, k + 1))) for k in range(7)]
    features = FeatureSet.parse(("ema_2",), inputs=BAR_INPUTS)
    kernel = compile_kernel(features, "cpu", kernel_cache)
    plain = World(kernel, BarTickDecoder(), log, chunk_symbols=3)
    plain.run()
    # Everything is stored at every commit; one process sees the third symbol, later ones do not.
    shaken = World(kernel, BarTickDecoder(), log[:4], Always(), chunk_symbols=3)
    shaken.run()
    for value in log[4:]:
        shaken.restart()
        shaken.log.append(value)
        shaken.run()
    shaken.restart()
    assert str(shaken.rows()) == str(plain.rows())
    assert shaken.latest() == plain.latest()
