"""Rate of change in percent against the price ``window`` ticks ago (TA-Lib ``ROC``)."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator


@indicator(parameters=(Parameter("window", 10, 1, MAX_WINDOW),), lookback="window")
def roc(t: int, price: float, price_ring: Ring, mask: int, window: int) -> tuple[float]:
    """Advance by one tick."""
    if t < window:
        return (math.nan,)
    earlier = price_ring[(t - window) & mask]
    value = (price / earlier - 1.0) * 100.0 if earlier != 0.0 else 0.0
    return (value,)
