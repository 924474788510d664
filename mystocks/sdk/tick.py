"""A tick as a user states it, and the check that it is acceptable."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf, nan
from typing import Any, NamedTuple

from schemas.errors import InvalidInputError
from schemas.ticks.rules import MAX_EVENT_TIME_NS, MIN_EVENT_TIME_NS, tick_problem

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Tick(NamedTuple):
    """One trade or quote of one symbol.

    Attributes:
        symbol: ``[A-Za-z0-9._:/^=-]{1,32}``, the venue as suffix (``600000.SH``).
        event_time_ns: Nanoseconds since 1970 in UTC.
        price: Finite and above 0.
        size: Traded quantity, finite and at least 0; 0 where unknown.
        bid: Best bid, or None.
        ask: Best ask, or None.
        sequence: The feed's own number of this tick, or None.
        volume: Traded quantity since the session began, or None.
        amount: Turnover since the session began, or None.
    """

    symbol: str
    event_time_ns: int
    price: float
    size: float = 0.0
    bid: float | None = None
    ask: float | None = None
    sequence: int | None = None
    volume: float | None = None
    amount: float | None = None


def as_tick(values: Sequence[Any]) -> Tick:
    """Returns a tick of values in the order of its fields; a datetime becomes nanoseconds.

    Raises:
        InvalidInputError: There are too few or too many values, or a time has no time zone.
    """
    try:
        tick = values if isinstance(values, Tick) else Tick(*values)
    except TypeError:
        raise InvalidInputError(
            "expected a tick (symbol, event_time_ns, price[, size…]), was "
            f"{values!r:.80}; correct it"
        ) from None
    if isinstance(tick.event_time_ns, datetime):
        return tick._replace(event_time_ns=time_to_ns(tick.event_time_ns))
    return tick


def time_to_ns(time: datetime, field: str = "event_time_ns") -> int:
    """Returns nanoseconds since 1970 in UTC, exactly.

    Args:
        time: With a time zone.
        field: What to call it in an error.

    Raises:
        InvalidInputError: `time` has no time zone.
    """
    if time.tzinfo is None:
        raise InvalidInputError(
            f"expected {field} with a time zone, was {time.isoformat()}; "
            "add one, for example tzinfo=datetime.UTC"
        )
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def check_tick(tick: Tick, where: str) -> Tick:
    """Returns the tick with plain numbers.

    Args:
        tick: The tick to check.
        where: Names it in an error, for example ``line 7``.

    Raises:
        InvalidInputError: A field is not acceptable; the message names it.
    """
    symbol, time, price, size = tick[:4]
    if (
        tick[4:] == _NO_OPTIONALS
        and type(time) is int
        and MIN_EVENT_TIME_NS <= time <= MAX_EVENT_TIME_NS
        and type(price) is float
        and type(size) is float
        and 0.0 < price < inf
        and 0.0 <= size < inf
        and symbol in _KNOWN_SYMBOLS
    ):
        return tick
    plain = _plain(tick, where)
    problem = tick_problem(
        plain.symbol,
        plain.event_time_ns,
        plain.price,
        plain.size,
        nan if plain.bid is None else plain.bid,
        nan if plain.ask is None else plain.ask,
        -1 if plain.sequence is None else plain.sequence,
        nan if plain.volume is None else plain.volume,
        nan if plain.amount is None else plain.amount,
    )
    if problem is None and plain.sequence is not None and plain.sequence < 0:
        problem = f"sequence is {plain.sequence}, expected at least 0"
    if problem is not None:
        raise InvalidInputError(f"{problem} ({where}); correct it")
    if len(_KNOWN_SYMBOLS) >= _MAX_KNOWN_SYMBOLS:
        _KNOWN_SYMBOLS.clear()
    _KNOWN_SYMBOLS.add(plain.symbol)
    return plain


def plain_tick(tick: Tick, where: str) -> Tick:
    """Returns the tick with plain numbers, whatever their values are.

    Args:
        tick: The tick to convert.
        where: Names it in an error.

    Raises:
        InvalidInputError: A field is of another type, or an integer does not fit 64 bits.
    """
    plain = _plain(tick, where)
    for name, value in (("event_time_ns", plain.event_time_ns), ("sequence", plain.sequence)):
        if value is not None and not -(2**63) <= value < 2**63:
            raise InvalidInputError(
                f"{name} is {value}, expected an integer of 64 bits ({where}); correct it"
            )
    return plain


_NO_OPTIONALS = (None,) * 5
# Symbols that passed the check once; bounded so that a caller with ever new ones runs on.
_KNOWN_SYMBOLS: set[str] = set()
_MAX_KNOWN_SYMBOLS = 1_000_000


def _plain(tick: Tick, where: str) -> Tick:
    """The tick with `str`, `int` and `float` in place of what converts to them without loss."""
    if not isinstance(tick.symbol, str):
        raise InvalidInputError(
            f"symbol is {tick.symbol!r:.80}, expected a string ({where}); correct it"
        )
    return Tick(
        tick.symbol,
        _integer(tick.event_time_ns, "event_time_ns", where),
        _number(tick.price, "price", where),
        _number(tick.size, "size", where),
        _optional(tick.bid, "bid", where),
        _optional(tick.ask, "ask", where),
        None if tick.sequence is None else _integer(tick.sequence, "sequence", where),
        _optional(tick.volume, "volume", where),
        _optional(tick.amount, "amount", where),
    )


def _integer(value: object, field: str, where: str) -> int:
    if isinstance(value, datetime):
        return time_to_ns(value, field)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidInputError(
            f"{field} is {value!r:.80}, expected an integer ({where}); correct it"
        )
    return int(value.__index__())


def _number(value: object, field: str, where: str) -> float:
    if isinstance(value, (bool, str)) or not (
        hasattr(value, "__float__") or hasattr(value, "__index__")
    ):
        raise InvalidInputError(
            f"{field} is {value!r:.80}, expected a number ({where}); correct it"
        )
    return float(value)  # type: ignore[arg-type]


def _optional(value: object, field: str, where: str) -> float | None:
    return None if value is None else _number(value, field, where)
