"""Price less the price ``window`` ticks ago (TA-Lib ``MOM``)."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator


@indicator(parameters=(Parameter("window", 10, 1, MAX_WINDOW),), lookback="window")
def momentum(t: int, price: float, price_ring: Ring, mask: int, window: int) -> tuple[float]:
    """Advance by one tick."""
    value = price - price_ring[(t - window) & mask] if t >= window else math.nan
    return (value,)
