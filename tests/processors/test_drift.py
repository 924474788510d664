"""A price of 1e6 with a tiny volatility, over a million ticks, stays exact."""

import numpy as np
import pytest
import talib

from processors.features.compute import compute_indicators

TICKS = 1_000_000
LAST = 2_000
LEVEL = 1e6


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(5)
    price = LEVEL + 1e-3 * talib.EMA(rng.normal(0, 10.0, TICKS + 100), 20)[100:]
    return {"price": price, "size": rng.exponential(1.0, TICKS)}


def _last_windows(values, window):
    """The windows of the last ticks, in extended precision where the machine has it."""
    tail = values[-(LAST + window - 1) :].astype(np.longdouble)
    return np.lib.stride_tricks.sliding_window_view(tail, window)


def test_windows_equal_a_two_pass_computation(series, kernel_cache):
    names = ["sma_20", "bollinger_20_2", "stddev_50", "zscore_20", "wma_20", "vwap_20"]
    got = {
        column: values[-LAST:]
        for column, values in compute_indicators(names, series, cache_dir=kernel_cache).items()
    }
    window = _last_windows(series["price"], 20)
    sizes = _last_windows(series["size"], 20)
    mean, deviation = window.mean(axis=1), window.std(axis=1)
    weights = np.arange(1, 21)
    assert np.abs(got["sma_20"] - mean).max() <= 1e-12 * LEVEL
    assert np.abs(got["boll_mid"] - mean).max() <= 1e-12 * LEVEL
    assert np.abs(got["boll_upper"] - (mean + 2 * deviation)).max() <= 1e-12 * LEVEL
    assert np.abs(got["boll_lower"] - (mean - 2 * deviation)).max() <= 1e-12 * LEVEL
    assert np.abs(got["wma_20"] - window @ weights / weights.sum()).max() <= 1e-12 * LEVEL
    vwap = (window * sizes).sum(axis=1) / sizes.sum(axis=1)
    assert np.abs(got["vwap_20"] - vwap).max() <= 1e-12 * LEVEL
    of_50 = _last_windows(series["price"], 50).std(axis=1)
    assert (np.abs(got["stddev_50"] - of_50) / of_50).max() <= 1e-4
    zscore = (window[:, -1] - mean) / deviation
    assert (np.abs(got["zscore_20"] - zscore) * deviation).max() <= 1e-12 * LEVEL


def test_averages_that_never_forget_equal_talib(series, kernel_cache):
    price = series["price"]
    got = compute_indicators(["ema_26", "rsi_14", "macd"], {"price": price},
                             cache_dir=kernel_cache)  # fmt: skip
    line, signal, histogram = talib.MACD(price)
    for column, wanted in (
        ("ema_26", talib.EMA(price, 26)),
        ("rsi_14", talib.RSI(price, 14)),
        ("macd", line),
        ("macd_signal", signal),
        ("macd_hist", histogram),
    ):
        np.testing.assert_allclose(
            got[column][-LAST:], wanted[-LAST:], rtol=1e-12, atol=1e-12 * LEVEL
        )
