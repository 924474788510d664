"""Bars equal pandas' resample(closed="left", label="right")."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from processors.bars.rules import BarRules
from schemas.ticks.encode import encode_arrow
from tests.processors.bars.rig import DAY, HOUR, MINUTE, SECOND, Batch, bars_of, task_of

PRICES = Path(__file__).parents[4] / "shared" / "data" / "btc_perp_1m_2022.parquet"
FREQUENCIES = {"1s": "1s", "1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h", "1d": "1D"}
NAMES = ["open", "high", "low", "close", "volume", "amount", "trades"]
# Far enough behind everything that it closes all bars, and confirmed by a second tick.
END = 400 * DAY


def bars_from_ticks(ticks: pd.DataFrame, intervals: list[str], rows: int = 40_000) -> pd.DataFrame:
    """Returns the bars of ticks (symbol, time, price, size), taken in batches of so many rows."""
    task = task_of(BarRules.of(intervals))
    last = ticks["time"].max() + END
    produced = []
    for start in range(0, len(ticks), rows):
        part = ticks.iloc[start : start + rows]
        columns = (part[name].to_numpy() for name in ("time", "price", "size"))
        produced.append(task.process(Batch([encode(part["symbol"].tolist(), *columns)], start), 0))
    for symbol in ticks["symbol"].unique():
        for time in (last, last + 1):
            value = encode([symbol], np.array([time]), np.ones(1), np.ones(1))
            produced.append(task.process(Batch([value], len(ticks)), 0))
    assert not any(one.late or one.dropped or one.duplicates for one in produced)
    return pd.DataFrame(bars_of(*produced))


def encode(symbols, time, price, size) -> bytes:
    return encode_arrow(symbols, time, price, size)


def resampled(ticks: pd.DataFrame, interval: str) -> pd.DataFrame:
    """Returns the same bars by pandas; bars without ticks do not exist here."""
    indexed = ticks.set_index(pd.to_datetime(ticks["time"], utc=True))
    indexed["amount"] = indexed["price"] * indexed["size"]
    groups = indexed.groupby("symbol").resample(FREQUENCIES[interval], closed="left", label="right")
    table = groups["price"].ohlc()
    table["volume"] = groups["size"].sum()
    table["amount"] = groups["amount"].sum()
    table["trades"] = groups["price"].count()
    table = table[table["trades"] > 0]
    ends = table.index.get_level_values(1).as_unit("ns").asi8
    return table.set_axis(pd.MultiIndex.from_arrays([table.index.get_level_values(0), ends]))


def assert_equal(bars: pd.DataFrame, ticks: pd.DataFrame, intervals: list[str]) -> None:
    for interval in intervals:
        expected = resampled(ticks, interval).sort_index()
        found = bars[bars["interval"] == interval].set_index(["symbol", "end"]).sort_index()
        assert found.index.tolist() == expected.index.tolist(), interval
        np.testing.assert_allclose(found[NAMES], expected[NAMES], rtol=1e-12, err_msg=interval)
        assert (found["revision"] == 0).all()


@pytest.mark.skipif(not PRICES.exists(), reason="the sample prices are not here")
def test_a_month_of_minutes_becomes_the_bars_of_pandas():
    minutes = pd.read_parquet(PRICES)
    start = pd.to_datetime(minutes["event_time"]).astype("datetime64[ns]").astype("int64")
    order = ["open", "high", "low", "close"]
    ticks = pd.DataFrame(
        {
            "symbol": np.repeat(minutes["symbol"].to_numpy(), 4),
            "time": (start.to_numpy()[:, None] + np.arange(4) * 15 * SECOND).ravel(),
            "price": minutes[order].to_numpy().ravel(),
            "size": np.repeat(minutes["volume"].to_numpy() / 4, 4),
        }
    ).sort_values("time", kind="stable", ignore_index=True)
    intervals = ["1m", "5m", "15m", "1h", "1d"]
    bars = bars_from_ticks(ticks, intervals)
    assert_equal(bars, ticks, intervals)
    widths = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": HOUR, "1d": DAY}
    assert ((bars["end"] - bars["start"]) == bars["interval"].map(widths)).all()


@pytest.mark.parametrize("seed", range(3))
def test_random_ticks_become_the_bars_of_pandas(seed):
    rng = np.random.default_rng(seed)
    n = 30_000
    gaps = rng.exponential(0.4 * SECOND, n).astype(np.int64)
    gaps[rng.random(n) < 0.001] += 3 * HOUR
    ticks = pd.DataFrame(
        {
            "symbol": rng.choice(["A", "BTC-USDT.BINANCE", "C"], n),
            "time": 1_700_000_000 * SECOND + np.cumsum(gaps),
            "price": np.round(100 + np.cumsum(rng.normal(0, 0.05, n)), 2),
            "size": rng.integers(0, 9, n).astype(float),
        }
    )
    assert_equal(bars_from_ticks(ticks, list(FREQUENCIES), rows=997), ticks, list(FREQUENCIES))
