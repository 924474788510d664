"""Standard deviation (ddof=0) of the last ``window`` prices (TA-Lib ``STDDEV``)."""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import deviation_of, rolling_deviations


@indicator(
    parameters=(Parameter("window", 20, 2, MAX_WINDOW),),
    state=("mean", "squares"),
    lookback="window",
)
def stddev(
    t: int, price: float, price_ring: Ring, mask: int, window: int, mean: float, squares: float
) -> tuple[float, float, float]:
    """Advance by one tick."""
    mean, squares = rolling_deviations(t, price, price_ring, mask, window, mean, squares)
    value = deviation_of(squares, window) if t >= window - 1 else math.nan
    return mean, squares, value
