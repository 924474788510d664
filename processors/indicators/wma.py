"""Weighted moving average, weights 1 to ``window``, the newest the heaviest (TA-Lib ``WMA``)."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import exact_mean, rebase_due


def exact_weighted_mean(x: float, ring: Ring, mask: int, t: int, window: int) -> float:
    """Return the linearly weighted mean of the last ``window`` values, ``x`` being the newest."""
    total = 0.0
    for k in range(1, window):
        total += (window - k) * (ring[(t - k) & mask] - x)
    return x + total / (0.5 * window * (window + 1))


@indicator(
    parameters=(Parameter("window", 20, 2, MAX_WINDOW),),
    state=("mean", "weighted"),
    lookback="window",
)
def wma(
    t: int, price: float, price_ring: Ring, mask: int, window: int, mean: float, weighted: float
) -> tuple[float, float, float]:
    """Advance by one tick."""
    if t < window - 1:
        return mean, weighted, math.nan
    if rebase_due(t, window):
        mean = exact_mean(price, price_ring, mask, t, window)
        weighted = exact_weighted_mean(price, price_ring, mask, t, window)
    else:
        weighted += (2.0 / (window + 1)) * (price - mean)
        mean += (price - price_ring[(t - window) & mask]) * (1.0 / window)
    return mean, weighted, weighted
