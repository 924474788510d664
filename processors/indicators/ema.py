"""Exponential moving average with weight ``2 / (window + 1)`` (TA-Lib ``EMA``).

Profile ``cn`` starts with the first price instead of the mean of the first ``window``.
"""

import math

from processors.indicators.averages import exponential
from processors.indicators.contract import MAX_WINDOW, Parameter, indicator


@indicator(parameters=(Parameter("window", 20, 2, MAX_WINDOW),), state=("average",))
def ema(t: int, price: float, window: int, cn: int, average: float) -> tuple[float, float]:
    """Advance by one tick."""
    average = exponential(t, price, window, 2.0 / (window + 1), cn, average)
    value = average if cn == 1 or t >= window - 1 else math.nan
    return average, value
