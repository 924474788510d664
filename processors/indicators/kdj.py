"""KDJ: the stochastic of ``window`` bars, smoothed twice; J = 3K - 2D. Needs high and low.

A smoothing of M is China's SMA(x, M, 1), an EMA of 2M - 1: ``kdj_9_3_3`` has the K and D of
TA-Lib's ``STOCH(9, 5, EMA, 5, EMA)`` and its warm-up. Profile ``cn``: first-value seeds, from the
first full window on. A window without any range counts as 0.
"""

import math

from processors.indicators.averages import exponential
from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator


@indicator(
    parameters=(
        Parameter("window", 9, 1, MAX_WINDOW),
        Parameter("k_smoothing", 3, 1, 1024),
        Parameter("d_smoothing", 3, 1, 1024),
    ),
    state=("k_average", "d_average"),
    outputs=("k", "d", "j"),
    lookback="window",
)
def kdj(
    t: int,
    price: float,
    high: float,
    low: float,
    high_ring: Ring,
    low_ring: Ring,
    mask: int,
    window: int,
    k_smoothing: int,
    d_smoothing: int,
    cn: int,
    k_average: float,
    d_average: float,
) -> tuple[float, float, float, float, float]:
    """Advance by one bar."""
    k_window = 2 * k_smoothing - 1
    d_window = 2 * d_smoothing - 1
    k_start = window - 1
    d_start = k_start if cn == 1 else k_start + k_window - 1
    value_start = d_start if cn == 1 else d_start + d_window - 1
    if t >= k_start:
        highest = high
        lowest = low
        for k in range(1, window):
            slot = (t - k) & mask
            highest = max(highest, high_ring[slot])
            lowest = min(lowest, low_ring[slot])
        span = highest - lowest
        position = 100.0 * ((price - lowest) / span) if span > 0.0 else 0.0
        k_average = exponential(
            t - k_start, position, k_window, 2.0 / (k_window + 1), cn, k_average
        )
    if t >= d_start:
        d_average = exponential(
            t - d_start, k_average, d_window, 2.0 / (d_window + 1), cn, d_average
        )
    if t < value_start:
        return k_average, d_average, math.nan, math.nan, math.nan
    return k_average, d_average, k_average, d_average, 3.0 * k_average - 2.0 * d_average
