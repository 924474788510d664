"""On-balance volume: sizes added on a rise and subtracted on a fall (TA-Lib ``OBV``)."""

from processors.indicators.contract import indicator


@indicator(state=("previous", "balance"))
def obv(
    t: int, price: float, size: float, previous: float, balance: float
) -> tuple[float, float, float]:
    """Advance by one tick; the first size is where the count starts."""
    if t == 0:
        balance = size
    elif price > previous:
        balance += size
    elif price < previous:
        balance -= size
    return price, balance, balance
