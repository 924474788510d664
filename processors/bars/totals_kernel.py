"""The compiled part about running totals: what was traded since the total before.

A tick that its symbol's watermark does not believe yet (see `TickOrder`) brings totals that wait:
ticks after it count from the totals before it, unless they confirm it. What it added itself is
taken back from its bars when it is refuted.
"""

import math

from processors.bars.layout import (
    TOTAL_AMOUNT,
    TOTAL_VOLUME,
    TOTALS_AT,
    TOTALS_OF,
    WAITING_ADDED,
    WAITING_ADDED_AMOUNT,
    WAITING_AMOUNT,
    WAITING_AT,
    WAITING_OF,
    WAITING_VOLUME,
    BarArrays,
    Ticks,
)
from processors.bars.session_kernel import NO_SESSION
from schemas.machine_code import kept_njit


@kept_njit()
def waiting_are_refuted(slot: int, time: int, watermark: int, bars: BarArrays) -> bool:
    """Takes waiting totals over if a tick confirms them; returns whether it refutes them.

    Args:
        slot: The symbol.
        time: Of a tick of it that is not late.
        watermark: Of the symbol after that tick.
        bars: Their marks and totals.
    """
    marks, totals = bars.marks[slot], bars.totals[slot]
    if marks[WAITING_AT] == 0:
        return False
    if watermark >= marks[WAITING_AT]:
        marks[TOTALS_AT], marks[TOTALS_OF] = marks[WAITING_AT], marks[WAITING_OF]
        totals[TOTAL_VOLUME], totals[TOTAL_AMOUNT] = totals[WAITING_VOLUME], totals[WAITING_AMOUNT]
        marks[WAITING_AT] = 0
        return False
    return bool(time < marks[WAITING_AT])


@kept_njit()
def traded(
    ticks: Ticks, i: int, in_time: bool, segment: int, session: int, bars: BarArrays
) -> tuple[float, float, bool]:
    """Returns volume, amount, and whether they are a total whose beginning was not seen.

    Args:
        ticks: All ticks.
        i: The one that is asked for; `waiting_are_refuted` was called for it.
        in_time: Whether it is not late.
        segment: See `segment_at`.
        session: See `session_start`.
        bars: Their marks and totals, which go on with the tick's.
    """
    slot, time, price, size = ticks.slot[i], ticks.time[i], ticks.price[i], ticks.size[i]
    total, total_amount = ticks.volume[i], ticks.amount[i]
    marks, totals = bars.marks[slot], bars.totals[slot]
    newer = in_time and segment != NO_SESSION and time >= marks[TOTALS_AT]
    if math.isnan(total) or not newer:
        return size, price * size, False
    # Of the very time of those that wait, or it would have confirmed or refuted them.
    waits = marks[WAITING_AT] != 0
    of = marks[WAITING_OF] if waits else marks[TOTALS_OF]
    base = totals[WAITING_VOLUME] if waits else totals[TOTAL_VOLUME]
    base_amount = totals[WAITING_AMOUNT] if waits else totals[TOTAL_AMOUNT]
    if of != session + 1 or total < base:
        base, base_amount = 0.0, 0.0
    more = total - base
    more_amount = price * more
    if total_amount >= base_amount:
        more_amount = total_amount - base_amount
    else:
        total_amount = base_amount + more_amount
    unknown = marks[TOTALS_OF] == 0
    if time <= ticks.watermark[i]:
        marks[TOTALS_AT], marks[TOTALS_OF] = time, session + 1
        totals[TOTAL_VOLUME], totals[TOTAL_AMOUNT] = total, total_amount
    else:
        if not waits:
            totals[WAITING_ADDED], totals[WAITING_ADDED_AMOUNT] = 0.0, 0.0
        marks[WAITING_AT], marks[WAITING_OF] = time, session + 1
        totals[WAITING_VOLUME], totals[WAITING_AMOUNT] = total, total_amount
        if size == 0.0:
            totals[WAITING_ADDED] += more
            totals[WAITING_ADDED_AMOUNT] += more_amount
    if size != 0.0:
        return size, price * size, False
    return more, more_amount, unknown
