"""Exponential averages: the function that EMA, MACD, RSI, ATR and KDJ share."""


def exponential(
    i: int, x: float, window: int, weight: float, first_value_seed: int, average: float
) -> float:
    """Return the average after the ``i``-th observation ``x`` (0 is the first).

    Seeded with the mean of the first ``window`` observations (TA-Lib): until then the returned
    value is their sum. With ``first_value_seed`` the first observation is the seed (pandas
    ``ewm(adjust=False)``) and every value counts.

    Args:
        i: Observations before this one.
        x: The observation.
        window: Observations in the seed.
        weight: Weight of the newest: ``2 / (window + 1)`` for an EMA, ``1 / window`` for Wilder's.
        first_value_seed: 1 or 0.
        average: What the last call returned, 0 before the first.
    """
    if i == 0 and first_value_seed == 1:
        return x
    if i >= window or first_value_seed == 1:
        return average + weight * (x - average)
    average += x
    if i == window - 1:
        average /= window
    return average
