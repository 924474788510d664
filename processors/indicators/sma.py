"""Simple moving average: the mean of the last ``window`` prices (TA-Lib ``SMA``)."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import rolling_mean


@indicator(parameters=(Parameter("window", 20, 2, MAX_WINDOW),), state=("mean",), lookback="window")
def sma(
    t: int, price: float, price_ring: Ring, mask: int, window: int, mean: float
) -> tuple[float, float]:
    """Advance by one tick."""
    mean = rolling_mean(t, price, price_ring, mask, window, mean)
    value = mean if t >= window - 1 else math.nan
    return mean, value
