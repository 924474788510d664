"""What the columns of a file mean, by the names that data vendors give them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.errors import InvalidInputError

Label = Literal["start", "end"]

_SYMBOL = (
    "symbol",
    "tscode",
    "code",
    "ticker",
    "instrument",
    "stockcode",
    "seccode",
    "orderbookid",
)
# The first one that a file has counts. Names that say what moment of a bar they are come first.
_END_TIMES = ("eventtimens", "eventtime", "endtime", "closetime", "tradetime")
_START_TIMES = ("starttime", "opentime")
_TIMES = ("datetime", "timestamp", "ts", "tradedate", "date", "day", "time", "")
# The file has the day in one column and the time of day in another.
_DAYS, _CLOCKS = ("date", "day", "tradedate"), ("time", "tradetime", "clock")
_PRICES = ("open", "high", "low", "close")
_BAR_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "volume": ("volume", "vol"),
    "amount": ("amount", "turnover", "money", "quotevolume", "quoteassetvolume"),
    "trades": ("trades", "tradecount", "numberoftrades", "ntrades", "transactions"),
}
_TICK_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "price": ("price", "last", "lastprice", "tradeprice"),
    "size": ("size", "qty", "quantity", "lastsize"),
    "bid": ("bid", "bidprice", "bid1"),
    "ask": ("ask", "askprice", "ask1"),
    "sequence": ("sequence", "seq"),
    "volume": ("volume", "vol"),
    "amount": ("amount", "turnover"),
}


@dataclass(frozen=True)
class Layout:
    """Which column of a file is what.

    Attributes:
        kind: What the rows are.
        columns: Name of ours to the file's; ``time`` and, where the time of day stands apart,
            ``clock`` are among ours; ``symbol`` may be missing.
        label: Which moment of a bar its time is, as far as the name says so.
        is_tushare: Whether volume is in lots of 100 shares and amount in thousands of yuan.
    """

    kind: Literal["bars", "ticks"]
    columns: Mapping[str, str]
    label: Label
    is_tushare: bool = False


def recognise(names: Sequence[str]) -> Layout:
    """Returns the layout of a file with columns of these names.

    Raises:
        InvalidInputError: It is neither of ticks nor of bars; the message says what is missing.
    """
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), name)

    def find(candidates: Sequence[str]) -> str | None:
        return next((known[name] for name in candidates if name in known), None)

    columns: dict[str, str] = {}
    symbol = find(_SYMBOL)
    if symbol is not None:
        columns["symbol"] = symbol
    label: Label = "start"
    day, clock = find(_DAYS), find(_CLOCKS)
    time = find((*_START_TIMES, *_END_TIMES, *_TIMES))
    if day is not None and clock is not None and time in (day, clock):
        columns |= {"time": day, "clock": clock}
    elif time is not None:
        columns["time"] = time
        label = "end" if time == find(_END_TIMES) and find(_START_TIMES) is None else "start"
    else:
        raise InvalidInputError(
            f"expected a column date, datetime, time or timestamp, was {_listed(names)}; rename it"
        )
    if all(name in known for name in _PRICES):
        columns |= {name: known[name] for name in _PRICES}
        columns |= {n: found for n, c in _BAR_COLUMNS.items() if (found := find(c)) is not None}
        return Layout("bars", columns, label, "tscode" in known and "vol" in known)
    columns |= {n: found for n, c in _TICK_COLUMNS.items() if (found := find(c)) is not None}
    if "price" not in columns:
        raise InvalidInputError(
            "expected the columns open, high, low, close of bars, or price of ticks, was "
            f"{_listed(names)}; rename them"
        )
    return Layout("ticks", columns, "end")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) or "no column"
