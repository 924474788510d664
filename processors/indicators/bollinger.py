"""Bollinger bands: rolling mean, plus and minus ``deviations`` standard deviations (ddof=0).

As TA-Lib's ``BBANDS`` with a simple average.
"""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import deviation_of, rolling_deviations


@indicator(
    parameters=(
        Parameter("window", 20, 2, MAX_WINDOW),
        Parameter("deviations", 2.0, 0.01, 100.0),
    ),
    state=("mean", "squares"),
    outputs=("upper", "mid", "lower"),
    lookback="window",
    prefix="boll",
)
def bollinger(
    t: int,
    price: float,
    price_ring: Ring,
    mask: int,
    window: int,
    deviations: float,
    mean: float,
    squares: float,
) -> tuple[float, float, float, float, float]:
    """Advance by one tick."""
    mean, squares = rolling_deviations(t, price, price_ring, mask, window, mean, squares)
    if t < window - 1:
        return mean, squares, math.nan, math.nan, math.nan
    width = deviations * deviation_of(squares, window)
    return mean, squares, mean + width, mean, mean - width
