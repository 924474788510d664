"""Rolling volume-weighted average price of the last ``window`` ticks; null where none was traded.

The same as TA-Lib's ``SUM(price * size) / SUM(size)``. Sizes differ by orders of magnitude, so the
sums are kept without rounding loss: a huge trade leaves nothing behind when it leaves the window.
"""

import math

from processors.indicators.contract import MAX_WINDOW, Parameter, Ring, indicator
from processors.indicators.windows import rebase_due, two_sum


@indicator(
    parameters=(Parameter("window", 20, 2, MAX_WINDOW),),
    state=("value", "value_rest", "volume", "volume_rest"),
    lookback="window",
)
def vwap(
    t: int,
    price: float,
    size: float,
    price_ring: Ring,
    size_ring: Ring,
    mask: int,
    window: int,
    value: float,
    value_rest: float,
    volume: float,
    volume_rest: float,
) -> tuple[float, float, float, float, float]:
    """Advance by one tick."""
    if t < window - 1:
        return value, value_rest, volume, volume_rest, math.nan
    if rebase_due(t, window):
        value, value_rest, volume, volume_rest = 0.0, 0.0, 0.0, 0.0
        for k in range(1, window):
            slot = (t - k) & mask
            value, value_rest = two_sum(value, value_rest, price_ring[slot] * size_ring[slot])
            volume, volume_rest = two_sum(volume, volume_rest, size_ring[slot])
    else:
        slot = (t - window) & mask
        value, value_rest = two_sum(value, value_rest, -(price_ring[slot] * size_ring[slot]))
        volume, volume_rest = two_sum(volume, volume_rest, -size_ring[slot])
    value, value_rest = two_sum(value, value_rest, price * size)
    volume, volume_rest = two_sum(volume, volume_rest, size)
    traded = volume + volume_rest
    average = (value + value_rest) / traded if traded > 0.0 else math.nan
    return value, value_rest, volume, volume_rest, average
