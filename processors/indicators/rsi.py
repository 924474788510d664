"""Relative strength index with Wilder's averages (TA-Lib ``RSI``); 0 while the price never moved.

Profile ``cn``: SMA(gain, N, 1) / SMA(move, N, 1), the averages start with the first change.
"""

import math

from processors.indicators.averages import exponential
from processors.indicators.contract import MAX_WINDOW, Parameter, indicator

NO_MOVE = 1e-14
"""TA-Lib takes averages below this for zero (TA_EPSILON)."""


@indicator(parameters=(Parameter("window", 14, 2, MAX_WINDOW),), state=("previous", "gain", "loss"))
def rsi(
    t: int, price: float, window: int, cn: int, previous: float, gain: float, loss: float
) -> tuple[float, float, float, float]:
    """Advance by one tick."""
    value = math.nan
    if t > 0:
        change = price - previous
        rise = change if change > 0.0 else 0.0
        fall = -change if change < 0.0 else 0.0
        gain = exponential(t - 1, rise, window, 1.0 / window, cn, gain)
        loss = exponential(t - 1, fall, window, 1.0 / window, cn, loss)
        if cn == 1 or t >= window:
            moves = gain + loss
            value = 100.0 * (gain / moves) if moves >= NO_MOVE else 0.0
    return price, gain, loss, value
