"""Average true range with Wilder's average (TA-Lib ``ATR``), of bars: needs high and low.

Profile ``cn`` starts the average with the first true range.
"""

import math

from processors.indicators.averages import exponential
from processors.indicators.contract import MAX_WINDOW, Parameter, indicator


@indicator(parameters=(Parameter("window", 14, 1, MAX_WINDOW),), state=("previous", "average"))
def atr(
    t: int,
    price: float,
    high: float,
    low: float,
    window: int,
    cn: int,
    previous: float,
    average: float,
) -> tuple[float, float, float]:
    """Advance by one bar."""
    value = math.nan
    if t > 0:
        true_range = max(high - low, abs(high - previous), abs(low - previous))
        average = exponential(t - 1, true_range, window, 1.0 / window, cn, average)
        if cn == 1 or t >= window:
            value = average
    return price, average, value
