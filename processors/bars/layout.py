"""Columns of the arrays that hold a symbol's bars."""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Longs: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Codes: TypeAlias = npt.NDArray[np.int32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

# `BarArrays.heads`, per interval: bars held, end of the newest bar given up, earliest due time of
# an open bar (0 is none).
COUNT, GIVEN_UP, EARLIEST_OPEN = range(3)
HEADS = 3
# `BarArrays.times`, per bar. No tick from the due time on belongs to it: that is its end, or later
# where a session's last ticks do. First and last are the event times of the ticks that gave open
# and close; revision is that of the next emission.
END, START, DUE, FIRST, LAST, TRADES, REVISION, IS_OPEN = range(8)
TIMES = 8
# `BarArrays.prices`, per bar.
O_, H_, L_, C_, VOLUME, AMOUNT = range(6)
PRICES = 6
# `BarArrays.marks`: wall clock since which the symbol is silent, 0 until the clock is next looked
# at; of the newest totals the event time and, plus 1, the start of the session, 0 is none; the same
# of totals that wait for the watermark to come to them.
SILENT_SINCE, TOTALS_AT, TOTALS_OF, WAITING_AT, WAITING_OF = range(5)
MARKS = 5
# `BarArrays.totals`: newest cumulative volume and amount of that session; those that wait, and what
# they have added to their bars.
(
    TOTAL_VOLUME,
    TOTAL_AMOUNT,
    WAITING_VOLUME,
    WAITING_AMOUNT,
    WAITING_ADDED,
    WAITING_ADDED_AMOUNT,
) = range(6)
TOTALS = 6

# What became of a tick.
TAKEN, TOO_LATE, DUPLICATE, OUTSIDE = range(4)

# Columns of `Emitted.times`.
OUT_SLOT, OUT_START, OUT_END, OUT_TRADES, OUT_REVISION, OUT_MESSAGE = range(6)
OUT_TIMES = 6


class BarArrays(NamedTuple):
    """Bars of all symbols of a partition; rows of zeros are a symbol never seen.

    Attributes:
        heads: int64 [slots, intervals, HEADS].
        times: int64 [slots, intervals, bars, TIMES], bars by ascending end.
        prices: float64 [slots, intervals, bars, PRICES].
        marks: int64 [slots, MARKS].
        totals: float64 [slots, TOTALS].
    """

    heads: Longs
    times: Longs
    prices: Floats
    marks: Longs
    totals: Floats


class Emitted(NamedTuple):
    """Bars that a call has closed, by interval in the order in which they closed.

    Attributes:
        used: int64 [intervals], how many.
        times: int64 [intervals, room, OUT_TIMES].
        prices: float64 [intervals, room, PRICES].
    """

    used: Longs
    times: Longs
    prices: Floats


class Ticks(NamedTuple):
    """Ticks of a batch with what their order says.

    Attributes:
        slot: int32 [n].
        time: int64 [n], event time in nanoseconds since 1970 (UTC).
        price: float64 [n].
        size: float64 [n], 0 where absent.
        volume: float64 [n], of the session so far, NaN where absent.
        amount: float64 [n], likewise.
        message: int32 [n].
        watermark: int64 [n], of the symbol right after the tick, 0 is none.
    """

    slot: Codes
    time: Longs
    price: Floats
    size: Floats
    volume: Floats
    amount: Floats
    message: Codes
    watermark: Longs


class Sessions(NamedTuple):
    """See `processors.bars.calendars.Calendars`.

    Attributes:
        segments: int64 [n, 6].
        bounds: int64 [markets, 2].
        market: int32 [slots], of each symbol.
        hint: int64 [slots], segment in which the symbol's last tick was.
    """

    segments: Longs
    bounds: Longs
    market: Codes
    hint: Longs
