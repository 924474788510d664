"""Distance of the price from its rolling mean in standard deviations (ddof=0); 0 while flat."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import deviation_of, rolling_deviations


@indicator(
    parameters=(Parameter("window", 20, 2, MAX_WINDOW),),
    state=("mean", "squares"),
    lookback="window",
)
def zscore(
    t: int, price: float, price_ring: Ring, mask: int, window: int, mean: float, squares: float
) -> tuple[float, float, float]:
    """Advance by one tick."""
    mean, squares = rolling_deviations(t, price, price_ring, mask, window, mean, squares)
    if t < window - 1:
        return mean, squares, math.nan
    value = (price - mean) / deviation_of(squares, window) if squares > 0.0 else 0.0
    return mean, squares, value
