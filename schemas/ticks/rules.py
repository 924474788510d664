"""What makes a tick acceptable, in words; the same for every encoding and every entry.

`schemas.ticks.compiled.row_ok` states the numeric rules once more for compiled code; a test holds
the two equal.
"""

from math import isfinite, isnan

from schemas.symbols import symbol_problem

# 1973-03-03: no market data in nanoseconds is older, and every plausible time in seconds,
# milliseconds or microseconds is smaller.
MIN_EVENT_TIME_NS = 10**17
MAX_EVENT_TIME_NS = 2**63 - 1
# How far a tick may be ahead of its record's timestamp.
MAX_AHEAD_NS = 3600 * 10**9
# Keeps the list of refused rows in a dead letter's header below 64 KiB.
MAX_ROWS_PER_MESSAGE = 262_144
# Of decompressed Arrow buffers; the largest message that a default broker takes has 1 MiB.
MAX_DECODED_BYTES = 64 * 1024 * 1024


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    return repr(int(value)) if isfinite(value) and value == int(value) else repr(value)


def _time_problem(event_time: int, latest: int) -> str | None:
    if event_time < MIN_EVENT_TIME_NS:
        hint = ""
        for unit, scale in (("seconds", 10**9), ("milliseconds", 10**6), ("microseconds", 10**3)):
            # 1980 to 2100, in that unit.
            if 315_532_800 * 10**9 <= event_time * scale < 4_102_444_800 * 10**9:
                hint = f"; looks like {unit}"
        return f"event_time_ns is {event_time}, expected nanoseconds since 1970{hint}"
    if event_time > MAX_EVENT_TIME_NS:
        return f"event_time_ns is {event_time}, expected at most {MAX_EVENT_TIME_NS}"
    if event_time > latest:
        ahead = (event_time - latest + MAX_AHEAD_NS) / 1e9
        return (
            f"event_time_ns is {event_time}, {ahead:.0f} s ahead of the record's timestamp, "
            "expected at most 3600 s"
        )
    return None


def tick_problem(
    symbol: str,
    event_time: int,
    price: float,
    size: float,
    bid: float,
    ask: float,
    sequence: int,
    volume: float,
    amount: float,
    *,
    latest: int = MAX_EVENT_TIME_NS,
) -> str | None:
    """Returns what is wrong with a tick, or None.

    Args:
        symbol: Its symbol.
        event_time: Nanoseconds since 1970-01-01 UTC.
        price: Finite and above 0.
        size: Finite and at least 0.
        bid: NaN stands for absent; else finite and at least 0, as are `ask`, `volume`, `amount`.
        ask: As `bid`.
        sequence: -1 stands for absent.
        volume: As `bid`.
        amount: As `bid`.
        latest: Largest event time that the record's timestamp allows.
    """
    problem = symbol_problem(symbol)
    if problem:
        return problem
    if not (isfinite(price) and price > 0):
        return f"price is {_number(price)}, expected a finite number above 0"
    if not (isfinite(size) and size >= 0):
        return f"size is {_number(size)}, expected a finite number of at least 0"
    problem = _time_problem(event_time, latest)
    if problem:
        return problem
    for name, value in (("bid", bid), ("ask", ask), ("volume", volume), ("amount", amount)):
        if not isnan(value) and not (isfinite(value) and value >= 0):
            return f"{name} is {_number(value)}, expected a finite number of at least 0"
    if sequence < -1 or sequence > MAX_EVENT_TIME_NS:
        return f"sequence is {sequence}, expected 0 to {MAX_EVENT_TIME_NS}"
    return None
