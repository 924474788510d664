"""Every indicator equals TA-Lib, or the oracle named here, warm-up included."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import talib

from processors.features.compute import compute_indicators
from processors.indicators.grammar import parse_feature
from processors.indicators.registry import indicators

Bars = dict[str, np.ndarray]


def _windows(values: np.ndarray, window: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(values, window)


def _zscore(bars: Bars, window: int = 20) -> list[np.ndarray]:
    price = bars["price"]
    view = _windows(price, window)
    center = view[:, -1] + (view - view[:, -1:]).mean(axis=1)
    deviation = np.sqrt(((view - center[:, None]) ** 2).mean(axis=1))
    flat = np.ptp(view, axis=1) == 0
    value = np.full(len(price), np.nan)
    value[window - 1 :] = np.where(
        flat, 0.0, (view[:, -1] - center) / np.where(flat, 1.0, deviation)
    )
    return [value]


def _vwap(bars: Bars, window: int = 20) -> list[np.ndarray]:
    value = talib.SUM(bars["price"] * bars["size"], window)
    return [value / talib.SUM(bars["size"], window)]


def _stochastic(bars: Bars, window: int = 9, k: int = 3, d: int = 3) -> list[np.ndarray]:
    ema = talib.MA_Type.EMA
    slow_k, slow_d = talib.STOCH(
        bars["high"], bars["low"], bars["price"], window, 2 * k - 1, ema, 2 * d - 1, ema
    )
    return [slow_k, slow_d, 3 * slow_k - 2 * slow_d]


def _bands(bars: Bars, window: int, deviations: float) -> list[np.ndarray]:
    return list(talib.BBANDS(bars["price"], window, deviations, deviations))


def _atr(bars: Bars, window: int) -> list[np.ndarray]:
    return [talib.ATR(bars["high"], bars["low"], bars["price"], window)]


TALIB: dict[str, Callable[[Bars], list[np.ndarray]]] = {
    "sma": lambda b: [talib.SMA(b["price"], 20)],
    "sma_2": lambda b: [talib.SMA(b["price"], 2)],
    "sma_200": lambda b: [talib.SMA(b["price"], 200)],
    "ema": lambda b: [talib.EMA(b["price"], 20)],
    "ema_2": lambda b: [talib.EMA(b["price"], 2)],
    "rsi": lambda b: [talib.RSI(b["price"], 14)],
    "rsi_2": lambda b: [talib.RSI(b["price"], 2)],
    "macd": lambda b: list(talib.MACD(b["price"], 12, 26, 9)),
    "macd_5_35_5": lambda b: list(talib.MACD(b["price"], 5, 35, 5)),
    "macd_2_3_1": lambda b: list(talib.MACD(b["price"], 2, 3, 1)),
    "bollinger": lambda b: _bands(b, 20, 2.0),
    "bollinger_5_2.5": lambda b: _bands(b, 5, 2.5),
    "atr": lambda b: _atr(b, 14),
    "atr_1": lambda b: _atr(b, 1),
    "roc": lambda b: [talib.ROC(b["price"], 10)],
    "roc_1": lambda b: [talib.ROC(b["price"], 1)],
    "vwap": _vwap,
    "vwap_2": lambda b: _vwap(b, 2),
    "obv": lambda b: [talib.OBV(b["price"], b["size"])],
    "stddev": lambda b: [talib.STDDEV(b["price"], 20)],
    "stddev_100": lambda b: [talib.STDDEV(b["price"], 100)],
    "kdj": _stochastic,
    "kdj_14_2_5": lambda b: _stochastic(b, 14, 2, 5),
    "kdj_1_1_1": lambda b: _stochastic(b, 1, 1, 1),
    "wma": lambda b: [talib.WMA(b["price"], 20)],
    "wma_100": lambda b: [talib.WMA(b["price"], 100)],
    "momentum": lambda b: [talib.MOM(b["price"], 10)],
    "zscore": _zscore,
    "zscore_100": lambda b: _zscore(b, 100),
}


def _average(series: pd.Series, weight: float) -> pd.Series:
    return series.ewm(alpha=weight, adjust=False).mean()


def _cn_macd(bars: Bars) -> list[np.ndarray]:
    price = pd.Series(bars["price"])
    line = _average(price, 2 / 13) - _average(price, 2 / 27)
    signal = _average(line, 2 / 10)
    return [line.to_numpy(), signal.to_numpy(), (2 * (line - signal)).to_numpy()]


def _cn_rsi(bars: Bars) -> list[np.ndarray]:
    change = pd.Series(bars["price"]).diff()
    up, moves = _average(change.clip(lower=0), 1 / 14), _average(change.abs(), 1 / 14)
    value = (100 * up / moves.where(moves > 0)).fillna(0.0).to_numpy().copy()
    value[0] = np.nan
    return [value]


def _cn_kdj(bars: Bars) -> list[np.ndarray]:
    low = pd.Series(bars["low"]).rolling(9).min()
    span = pd.Series(bars["high"]).rolling(9).max() - low
    position = (100 * (bars["price"] - low) / span.where(span > 0)).fillna(0.0)
    k = _average(position.iloc[8:], 1 / 3).reindex(position.index)
    d = _average(k.iloc[8:], 1 / 3).reindex(position.index)
    return [k.to_numpy(), d.to_numpy(), (3 * k - 2 * d).to_numpy()]


def _cn_atr(bars: Bars) -> list[np.ndarray]:
    true_range = talib.TRANGE(bars["high"], bars["low"], bars["price"])
    return [_average(pd.Series(true_range), 1 / 14).to_numpy()]


CN: dict[str, Callable[[Bars], list[np.ndarray]]] = {
    "ema": lambda b: [_average(pd.Series(b["price"]), 2 / 21).to_numpy()],
    "macd": _cn_macd,
    "rsi": _cn_rsi,
    "kdj": _cn_kdj,
    "atr": _cn_atr,
    "sma": TALIB["sma"],
    "bollinger": TALIB["bollinger"],
}


def _tolerance(name: str, bars: Bars) -> float | np.ndarray:
    level = float(bars["price"].max())
    if name.startswith(("bollinger", "stddev")):
        return 1e-9 * level
    if name.startswith("zscore"):
        window = int(parse_feature(name).values[0])
        deviation = np.full(len(bars["price"]), np.inf)
        deviation[window - 1 :] = _windows(bars["price"], window).std(axis=1)
        return 1e-9 * level / np.maximum(deviation, 1e-12 * level)
    return 1e-12 * level


def _compare(name: str, profile: str, expected: list[np.ndarray], bars: Bars, cache: Path) -> None:
    columns = compute_indicators([name], bars, profile, cache)
    assert tuple(columns) == parse_feature(name).columns
    for (column, actual), wanted in zip(columns.items(), expected, strict=True):
        assert np.array_equal(np.isnan(actual), np.isnan(wanted)), f"warm-up of {column}"
        seen = ~np.isnan(wanted)
        error = np.abs(actual - wanted) - 1e-12 * np.abs(wanted)
        excess = (error - _tolerance(name, bars))[seen]
        assert (excess <= 0).all(), f"{column} is off by {error[seen].max()}"


@pytest.mark.parametrize("kind", ["walk", "cents", "flat_start"])
@pytest.mark.parametrize("name", TALIB)
def test_profile_talib_equals_the_oracle(name, kind, bars, kernel_cache):
    series = bars(kind, 1500)
    _compare(name, "talib", TALIB[name](series), series, kernel_cache)


@pytest.mark.parametrize("kind", ["walk", "cents", "flat_start"])
@pytest.mark.parametrize("name", CN)
def test_profile_cn_equals_pandas(name, kind, bars, kernel_cache):
    series = bars(kind, 1500)
    _compare(name, "cn", CN[name](series), series, kernel_cache)


def test_every_indicator_has_an_oracle():
    assert set(indicators()) == {parse_feature(name).indicator.name for name in TALIB}


def test_rsi_of_a_price_that_never_moved_is_zero(kernel_cache):
    flat = np.full(40, 12.5)
    for profile in ("talib", "cn"):
        values = compute_indicators(["rsi"], {"price": flat}, profile, kernel_cache)["rsi_14"]
        assert (values[14:] == 0.0).all()


def test_vwap_is_null_where_nothing_was_traded(kernel_cache):
    size = np.array([5.0, 1.0, 0.0, 0.0, 0.0, 2.0])
    series = {"price": np.arange(1.0, 7.0), "size": size}
    values = compute_indicators(["vwap_2"], series, cache_dir=kernel_cache)["vwap_2"]
    assert np.isnan(values).tolist() == [True, False, False, True, True, False]
    assert values[5] == 6.0


def test_vwap_forgets_a_huge_trade(kernel_cache):
    size = np.ones(200)
    size[70] = 1e15
    price = 100.0 + np.arange(200) * 0.01
    values = compute_indicators(["vwap_5"], {"price": price, "size": size}, "talib",
                                kernel_cache)["vwap_5"]  # fmt: skip
    np.testing.assert_allclose(values[75:], _windows(price, 5).mean(axis=1)[71:], rtol=1e-13)


def test_zscore_of_a_window_that_became_flat_is_zero(kernel_cache):
    price = np.concatenate([np.linspace(90.0, 110.0, 70), np.full(60, 111.3)])
    values = compute_indicators(["zscore_5"], {"price": price}, cache_dir=kernel_cache)["zscore_5"]
    assert (values[74:] == 0.0).all()
    assert (values[4:74] != 0.0).all()
