"""The compiled part: ticks in log order to bars.

Everything that happens to a bar is decided by its symbol's own ticks one by one, so any split of
the input into batches gives the same bars in the same order.
"""

import numpy as np

from processors.bars.layout import (
    AMOUNT,
    C_,
    COUNT,
    DUE,
    DUPLICATE,
    EARLIEST_OPEN,
    END,
    FIRST,
    GIVEN_UP,
    H_,
    IS_OPEN,
    L_,
    LAST,
    O_,
    OUT_END,
    OUT_MESSAGE,
    OUT_REVISION,
    OUT_SLOT,
    OUT_START,
    OUT_TRADES,
    OUTSIDE,
    REVISION,
    SILENT_SINCE,
    START,
    TAKEN,
    TOO_LATE,
    TOTALS_OF,
    TRADES,
    VOLUME,
    WAITING_ADDED,
    WAITING_ADDED_AMOUNT,
    WAITING_AT,
    WAITING_OF,
    BarArrays,
    Bytes,
    Codes,
    Emitted,
    Floats,
    Longs,
    Sessions,
    Ticks,
)
from processors.bars.session_kernel import NO_SESSION, bar_range, segment_at, session_start
from processors.bars.totals_kernel import traded, waiting_are_refuted
from schemas.machine_code import kept_njit

_NEWEST_TIME = 2**63 - 1


@kept_njit()
def advance(
    ticks: Ticks,
    outcome: Bytes,
    bars: BarArrays,
    sessions: Sessions,
    intervals: Longs,
    lateness: int,
    corrects: bool,
    drops_outside: bool,
    out: Emitted,
) -> int:
    """Advances the bars over ticks.

    Args:
        ticks: The ticks, in log order.
        outcome: What `TickOrder` said about each, uint8 [n]; becomes what became of each.
        bars: Advanced in place.
        sessions: Of the symbols' markets.
        intervals: int64 [m], nanoseconds; 0 is a session.
        lateness: How far the watermark must be past a bar's due time, nanoseconds.
        corrects: Whether late ticks correct bars.
        drops_outside: Whether ticks outside sessions are dropped.
        out: Takes the bars that close; as many as there are ticks and held bars must fit.

    Returns:
        How many ticks were given up with bars of the far future that nothing confirmed.
    """
    stray = 0
    for i in range(ticks.slot.size):
        verdict = outcome[i]
        if verdict == DUPLICATE:
            continue
        slot, time, watermark = ticks.slot[i], ticks.time[i], ticks.watermark[i]
        bars.marks[slot, SILENT_SINCE] = 0
        if verdict == TAKEN and waiting_are_refuted(slot, time, watermark, bars):
            _take_back(bars, slot, intervals, sessions)
        for j in range(intervals.size):
            _close_until(bars, slot, j, watermark, lateness, ticks.message[i], out)
        if verdict == TOO_LATE and not corrects:
            continue
        segment = segment_at(time, slot, sessions)
        if segment == NO_SESSION and drops_outside:
            outcome[i] = OUTSIDE
            continue
        session = session_start(time, segment, sessions)
        size, amount, unknown = traded(ticks, i, verdict == TAKEN, segment, session, bars)
        outcome[i] = TAKEN
        for j in range(intervals.size):
            start, end, due = bar_range(time, intervals[j], segment, sessions)
            bar, given_up = _bar_at(bars, slot, j, start, end, due, watermark, lateness)
            stray += given_up
            if bar < 0:
                outcome[i] = TOO_LATE
                continue
            # A total that was met half-way says nothing about bars that began after it did.
            counted = 0.0 if unknown and start != session else 1.0
            times, prices = bars.times[slot, j, bar], bars.prices[slot, j, bar]
            _add(times, prices, time, ticks.price[i], counted * size, counted * amount)
            if _is_past(due, watermark, lateness):
                _emit(bars, slot, j, bar, ticks.message[i], out)
            else:
                _open(bars, slot, j, bar)
    return stray


@kept_njit()
def silent_symbols(symbols: int, now: int, idle: int, lateness: int, bars: BarArrays) -> Codes:
    """Returns the symbols of which the clock has bars to close, int32, ascending.

    Symbols that have sent something since the last call begin to be silent with this one.

    Args:
        symbols: How many there are.
        now: Wall clock, nanoseconds since 1970 (UTC).
        idle: Nanoseconds for which a symbol must have been silent.
        lateness: Nanoseconds by which a bar's due time must have passed.
        bars: Their bars.
    """
    found = np.empty(symbols, np.int32)
    count = 0
    for slot in range(symbols):
        earliest = _NEWEST_TIME
        for j in range(bars.heads.shape[1]):
            if bars.heads[slot, j, EARLIEST_OPEN] != 0:
                earliest = min(earliest, bars.heads[slot, j, EARLIEST_OPEN])
        if earliest == _NEWEST_TIME:
            continue
        since = bars.marks[slot, SILENT_SINCE]
        if since == 0:
            bars.marks[slot, SILENT_SINCE] = now
        elif now - since >= idle and now - earliest >= lateness:
            found[count] = slot
            count += 1
    return found[:count]


@kept_njit()
def close_silent(slots: Codes, now: int, lateness: int, bars: BarArrays, out: Emitted) -> None:
    """Closes the bars of symbols whose due time has passed by the clock.

    Args:
        slots: The symbols.
        now: Wall clock, nanoseconds since 1970 (UTC).
        lateness: Nanoseconds by which a bar's due time must have passed.
        bars: Their bars.
        out: Takes the bars.
    """
    for slot in slots:
        for j in range(bars.heads.shape[1]):
            _close_until(bars, slot, j, now, lateness, 0, out)


@kept_njit()
def _is_past(due: int, watermark: int, lateness: int) -> bool:
    """Whether no tick before `due` is taken any more."""
    return watermark != 0 and watermark - due >= lateness


@kept_njit()
def _bar_at(
    bars: BarArrays,
    slot: int,
    j: int,
    start: int,
    end: int,
    due: int,
    watermark: int,
    lateness: int,
) -> tuple[int, int]:
    """Finds a bar by its end, or begins it.

    Returns:
        Its place, -1 where it is not kept any more; and how many ticks of a bar of the far future
        were given up to make room.
    """
    head, times, prices = bars.heads[slot, j], bars.times[slot, j], bars.prices[slot, j]
    count, given_up = head[COUNT], 0
    place = count
    while place > 0 and times[place - 1, END] > end:
        place -= 1
    if place > 0 and times[place - 1, END] == end:
        return place - 1, 0
    if end <= head[GIVEN_UP]:
        return -1, 0
    if count == times.shape[0]:
        count -= 1
        if _is_past(times[0, DUE], watermark, lateness):
            if place == 0:
                return -1, 0
            head[GIVEN_UP] = times[0, END]
            place -= 1
            for k in range(count):
                times[k] = times[k + 1]
                prices[k] = prices[k + 1]
        else:
            # Nothing confirmed the ticks furthest ahead, or the watermark would be there.
            given_up = times[count, TRADES]
            place = min(place, count)
            _find_earliest(head, times, count)
    for k in range(count, place, -1):
        times[k] = times[k - 1]
        prices[k] = prices[k - 1]
    times[place] = 0
    prices[place] = 0.0
    times[place, START], times[place, END], times[place, DUE] = start, end, due
    head[COUNT] = count + 1
    return place, given_up


@kept_njit()
def _add(bar: Longs, prices: Floats, time: int, price: float, size: float, amount: float) -> None:
    """Adds a tick; of equal times the first one opens and the last one closes."""
    if bar[TRADES] == 0:
        prices[O_] = prices[H_] = prices[L_] = prices[C_] = price
        bar[FIRST] = bar[LAST] = time
    else:
        if time < bar[FIRST]:
            prices[O_] = price
            bar[FIRST] = time
        if time >= bar[LAST]:
            prices[C_] = price
            bar[LAST] = time
        prices[H_] = max(prices[H_], price)
        prices[L_] = min(prices[L_], price)
    bar[TRADES] += 1
    prices[VOLUME] += size
    prices[AMOUNT] += amount


@kept_njit()
def _take_back(bars: BarArrays, slot: int, intervals: Longs, sessions: Sessions) -> None:
    """Takes what waiting totals have added from the bars of their time, and forgets them."""
    marks, totals = bars.marks[slot], bars.totals[slot]
    time, session = marks[WAITING_AT], marks[WAITING_OF] - 1
    marks[WAITING_AT] = 0
    volume, amount = totals[WAITING_ADDED], totals[WAITING_ADDED_AMOUNT]
    if volume == 0.0 and amount == 0.0:
        return
    segment = segment_at(time, slot, sessions)
    for j in range(intervals.size):
        start, end, _ = bar_range(time, intervals[j], segment, sessions)
        if marks[TOTALS_OF] == 0 and start != session:
            continue
        for bar in range(bars.heads[slot, j, COUNT]):
            if bars.times[slot, j, bar, END] == end:
                bars.prices[slot, j, bar, VOLUME] -= volume
                bars.prices[slot, j, bar, AMOUNT] -= amount
                _open(bars, slot, j, bar)


@kept_njit()
def _open(bars: BarArrays, slot: int, j: int, bar: int) -> None:
    """Notes that a bar has to be emitted when its time has come."""
    times, head = bars.times[slot, j, bar], bars.heads[slot, j]
    if times[IS_OPEN] == 0:
        times[IS_OPEN] = 1
        if head[EARLIEST_OPEN] == 0 or times[DUE] < head[EARLIEST_OPEN]:
            head[EARLIEST_OPEN] = times[DUE]


@kept_njit()
def _close_until(
    bars: BarArrays, slot: int, j: int, now: int, lateness: int, message: int, out: Emitted
) -> None:
    """Emits the open bars whose time has come."""
    head = bars.heads[slot, j]
    if head[EARLIEST_OPEN] == 0 or not _is_past(head[EARLIEST_OPEN], now, lateness):
        return
    times = bars.times[slot, j]
    for k in range(head[COUNT]):
        if times[k, IS_OPEN] != 0 and _is_past(times[k, DUE], now, lateness):
            _emit(bars, slot, j, k, message, out)
    _find_earliest(head, times, head[COUNT])


@kept_njit()
def _find_earliest(head: Longs, times: Longs, count: int) -> None:
    head[EARLIEST_OPEN] = 0
    for k in range(count):
        if times[k, IS_OPEN] != 0:
            head[EARLIEST_OPEN] = times[k, DUE]
            return


@kept_njit()
def _emit(bars: BarArrays, slot: int, j: int, bar: int, message: int, out: Emitted) -> None:
    times = bars.times[slot, j, bar]
    row = out.used[j]
    target = out.times[j, row]
    target[OUT_SLOT], target[OUT_MESSAGE] = slot, message
    target[OUT_START], target[OUT_END] = times[START], times[END]
    target[OUT_TRADES], target[OUT_REVISION] = times[TRADES], times[REVISION]
    out.prices[j, row] = bars.prices[slot, j, bar]
    out.used[j] = row + 1
    times[REVISION] += 1
    times[IS_OPEN] = 0
