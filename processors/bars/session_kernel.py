"""The compiled part about sessions: which of them a tick belongs to, and which bar."""

from processors.bars.calendars import (
    ACCEPT_FROM,
    ACCEPT_UNTIL,
    CLOSE,
    OPEN,
    SESSION_CLOSE,
    SESSION_OPEN,
)
from processors.bars.layout import Sessions
from schemas.machine_code import kept_njit

_DAY_NS = 86_400 * 10**9
_NEWEST_TIME = 2**63 - 1
# Results of `segment_at` that are none: bars aligned to UTC, and time outside the sessions.
ANY_TIME, NO_SESSION = -1, -2


@kept_njit()
def segment_at(time: int, slot: int, sessions: Sessions) -> int:
    """Returns the row of the segment that a tick belongs to, `ANY_TIME` or `NO_SESSION`."""
    market = sessions.market[slot]
    if market < 0:
        return ANY_TIME
    rows = sessions.segments
    low, high = sessions.bounds[market, 0], sessions.bounds[market, 1]
    if low == high or time < rows[low, ACCEPT_FROM] or time > rows[high - 1, ACCEPT_UNTIL]:
        return ANY_TIME
    row = sessions.hint[slot]
    fits = low <= row < high and rows[row, ACCEPT_FROM] <= time
    if not fits or (row + 1 < high and rows[row + 1, ACCEPT_FROM] <= time):
        while high - low > 1:
            middle = (low + high) // 2
            if rows[middle, ACCEPT_FROM] <= time:
                low = middle
            else:
                high = middle
        row = low
        sessions.hint[slot] = row
    return row if time <= rows[row, ACCEPT_UNTIL] else NO_SESSION


@kept_njit()
def session_start(time: int, segment: int, sessions: Sessions) -> int:
    """Returns when the session of a tick began; outside sessions that is the day of UTC."""
    start: int = time - time % _DAY_NS
    if segment >= 0:
        start = sessions.segments[segment, SESSION_OPEN]
    return start


@kept_njit()
def bar_range(time: int, interval: int, segment: int, sessions: Sessions) -> tuple[int, int, int]:
    """Returns start, end and due time of the bar that a tick belongs to."""
    if segment >= 0:
        rows = sessions.segments
        row = rows[segment]
        if interval == 0:
            start, end = row[SESSION_OPEN], row[SESSION_CLOSE]
        else:
            inside = min(max(time, row[OPEN]), row[CLOSE] - 1)
            start = inside - (inside - row[OPEN]) % interval
            end = min(start + interval, row[CLOSE])
            if end != row[CLOSE]:
                return start, end, end
        # A session's bar takes ticks until the last of its segments does.
        last = segment
        while rows[last, CLOSE] != end:
            last += 1
        due = rows[last, ACCEPT_UNTIL] + 1
        if last + 1 < rows.shape[0] and rows[last + 1, ACCEPT_FROM] >= end:
            due = min(due, rows[last + 1, ACCEPT_FROM])
        return start, end, due
    length = _DAY_NS if interval == 0 else interval
    start = time - time % length
    end = start + min(length, _NEWEST_TIME - start)
    return start, end, end
