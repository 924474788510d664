"""Moving average convergence/divergence: fast EMA less slow EMA, and its signal line.

As TA-Lib's ``MACD``: the fast EMA is seeded late, so that both EMAs start at the slow one's first
value, and all three columns start with the signal. Profile ``cn``: first-value seeds, no warm-up,
and the histogram is doubled.
"""

import math

from processors.indicators.averages import exponential
from processors.indicators.contract import MAX_WINDOW, Parameter, indicator


@indicator(
    parameters=(
        Parameter("fast", 12, 2, MAX_WINDOW),
        Parameter("slow", 26, 2, MAX_WINDOW),
        Parameter("signal", 9, 1, MAX_WINDOW),
    ),
    state=("fast_average", "slow_average", "signal_average"),
    outputs=("", "signal", "hist"),
    rule=("fast < slow", lambda fast, slow, signal: fast < slow),  # noqa: ARG005
)
def macd(
    t: int,
    price: float,
    fast: int,
    slow: int,
    signal: int,
    cn: int,
    fast_average: float,
    slow_average: float,
    signal_average: float,
) -> tuple[float, float, float, float, float, float]:
    """Advance by one tick."""
    fast_start = 0 if cn == 1 else slow - fast
    line_start = 0 if cn == 1 else slow - 1
    value_start = 0 if cn == 1 else slow + signal - 2
    if t >= fast_start:
        fast_average = exponential(t - fast_start, price, fast, 2.0 / (fast + 1), cn, fast_average)
    slow_average = exponential(t, price, slow, 2.0 / (slow + 1), cn, slow_average)
    line = fast_average - slow_average
    if t >= line_start:
        signal_average = exponential(
            t - line_start, line, signal, 2.0 / (signal + 1), cn, signal_average
        )
    if t < value_start:
        return fast_average, slow_average, signal_average, math.nan, math.nan, math.nan
    histogram = line - signal_average
    if cn == 1:
        histogram *= 2.0
    return fast_average, slow_average, signal_average, line, signal_average, histogram
