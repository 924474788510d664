"""Rolling windows: functions that step functions share.

A running sum drifts, so windows are computed anew at ticks fixed by the symbol's own count (never
by a batch's border: any split into micro-batches gives the same bits). Between two such ticks the
mean and the squared deviations move by Welford's update, which keeps the deviations of a price of
1e6 with a tiny volatility to about 1e-10 of it.
"""

import math

from processors.indicators.contract import Ring

REBASE_TICKS = 64
"""Least number of ticks between two exact computations: about one extra addition a tick."""

SMALL_SQUARE = 1e-14
"""A deviation below 1e-7 of the price is within reach of Welford's rounding error."""

COLLAPSE = 1e-6
"""So is what remains when an outlier leaves the window."""


def rebase_due(t: int, window: int) -> bool:
    """Tell whether the window is to be computed anew at tick ``t`` (at least ``window - 1``)."""
    return t == window - 1 or t % max(window, REBASE_TICKS) == 0


def exact_mean(x: float, ring: Ring, mask: int, t: int, window: int) -> float:
    """Return the mean of the last ``window`` values, ``x`` being the newest."""
    total = 0.0
    for k in range(1, window):
        total += ring[(t - k) & mask] - x
    return x + total / window


def rolling_mean(t: int, x: float, ring: Ring, mask: int, window: int, mean: float) -> float:
    """Return the mean of the last ``window`` values; ``mean`` unchanged while fewer were seen."""
    if t < window - 1:
        return mean
    if rebase_due(t, window):
        return exact_mean(x, ring, mask, t, window)
    return mean + (x - ring[(t - window) & mask]) * (1.0 / window)


def exact_deviations(x: float, ring: Ring, mask: int, t: int, window: int) -> tuple[float, float]:
    """Return mean and sum of squared deviations of the last ``window`` values in two passes."""
    center = exact_mean(x, ring, mask, t, window)
    total = (x - center) * (x - center)
    for k in range(1, window):
        deviation = ring[(t - k) & mask] - center
        total += deviation * deviation
    return center, total


def rolling_deviations(
    t: int, x: float, ring: Ring, mask: int, window: int, mean: float, squares: float
) -> tuple[float, float]:
    """Return mean and sum of squared deviations of the last ``window`` values.

    Both are unchanged while fewer were seen. Source: Welford 1962, in its sliding form; computed
    anew where little is left of what was subtracted, so a flat window has no deviation at all.
    """
    if t < window - 1:
        return mean, squares
    if rebase_due(t, window):
        return exact_deviations(x, ring, mask, t, window)
    old = ring[(t - window) & mask]
    change = x - old
    center = mean + change * (1.0 / window)
    remaining = squares + change * ((x - center) + (old - mean))
    if remaining != 0.0 and (
        remaining < SMALL_SQUARE * window * x * x or remaining < COLLAPSE * squares
    ):
        return exact_deviations(x, ring, mask, t, window)
    return center, remaining


def deviation_of(squares: float, window: int) -> float:
    """Return the population standard deviation (ddof=0) of a window from its squared deviations."""
    return math.sqrt(squares * (1.0 / window))


def two_sum(total: float, rest: float, x: float) -> tuple[float, float]:
    """Add ``x`` to the unevaluated sum ``total + rest``, losing nothing (Knuth's TwoSum)."""
    added = total + x
    virtual = added - total
    return added, rest + ((total - (added - virtual)) + (x - virtual))
