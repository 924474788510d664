"""Rows of a file as bars, and what is wrong with some of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mystocks.backfill.layout import Label, Layout
from mystocks.backfill.sessions import Days, days_of
from mystocks.backfill.times import (
    NO_TIME,
    Times,
    read_times,
    to_utc,
    zone_of,
)
from schemas.arrow_values import column_values
from schemas.bars import NO_TRADES, BarColumns, Interval
from schemas.errors import InvalidInputError
from schemas.symbols import market_of, qualify, symbol_problem
from schemas.ticks.rules import MIN_EVENT_TIME_NS

_DAY_NS = 86_400 * 10**9
# Vendors round prices that they adjusted for splits and dividends.
_ROUNDING = 1e-4
_LOT_SHARES, _THOUSAND = 100.0, 1000.0
_PRICES = ("open", "high", "low", "close")


@dataclass
class Symbols:
    """All symbols of a file, with a number each.

    Args:
        market: Of all of them, or None: then each one's suffix says it.
        only: The symbol of a file without a column of symbols, or None.
        default_market: Of those whose suffix says none, where `market` is None.
    """

    market: str | None
    only: str | None
    default_market: str
    names: list[str] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)
    _problems: dict[str, str] = field(default_factory=dict)
    _days: list[Days] = field(default_factory=list)

    def code(self, text: str | None) -> int:
        """Returns the number of a symbol as the file writes it; below 0 it is not acceptable."""
        if text is None:
            return -1
        found = self._codes.get(text)
        if found is None:
            found = self._codes[text] = self._add(text)
        return found

    def problem(self, text: str | None) -> str:
        """Returns why `code` did not accept a symbol."""
        return "symbol is missing" if text is None else self._problems[text]

    def days(self) -> list[Days]:
        """Returns the days of each symbol's market, by number."""
        for name in self.names[len(self._days) :]:
            self._days.append(days_of(self.market or market_of(name) or self.default_market))
        return self._days

    def _add(self, text: str) -> int:
        try:
            name = text if self.market is None else qualify(text, self.market)
        except InvalidInputError as error:
            self._problems[text] = str(error)
            return -1
        problem = symbol_problem(name)
        if problem is not None:
            self._problems[text] = problem
            return -1
        if name != text and name in self._codes:
            return self.code(name)
        self.names.append(name)
        self._codes[name] = len(self.names) - 1
        return len(self.names) - 1


@dataclass
class Rejects:
    """Rows that are not acceptable.

    Attributes:
        reasons: Number of rows by reason.
        first: Number of the row in the file, and reason, of the first ones.
        doubts: Number of rows that were taken although something is odd, by what it is.
    """

    reasons: dict[str, int] = field(default_factory=dict)
    first: list[tuple[int, str]] = field(default_factory=list)
    doubts: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(self.reasons.values())

    def add(self, rows: NDArray[np.int64], reason: str, most: int = 20) -> None:
        """Notes rows of the file that have the same fault."""
        self.reasons[reason] = self.reasons.get(reason, 0) + len(rows)
        for row in rows[: most - len(self.first) if len(self.first) < most else 0].tolist():
            self.first.append((row, reason))


class Columns:
    """The columns of one piece of a file.

    Args:
        table: The piece.
        layout: What its columns are.
        first_row: Number of its first row in the file.
        rejects: Where faults go.
    """

    def __init__(self, table: Any, layout: Layout, first_row: int, rejects: Rejects) -> None:
        self._table = table.combine_chunks()
        self._layout = layout
        self._first_row = first_row
        self._rejects = rejects
        self.good = np.ones(table.num_rows, np.bool_)

    def __len__(self) -> int:
        return len(self.good)

    def with_rejects(self, rejects: Rejects) -> "Columns":
        """Returns the same piece with another place for faults."""
        return Columns(self._table, self._layout, self._first_row, rejects)

    def has(self, name: str) -> bool:
        """Whether the file has a column that is this one."""
        return name in self._layout.columns

    def refuse(self, bad: NDArray[np.bool_], reason: str) -> None:
        """Notes a fault of rows that have no other yet."""
        bad = bad & self.good
        if bad.any():
            self._rejects.add(np.flatnonzero(bad) + self._first_row, reason)
            self.good &= ~bad

    def doubt(self, odd: NDArray[np.bool_], what: str) -> None:
        """Counts rows that are odd but taken."""
        count = int((odd & self.good).sum())
        if count:
            self._rejects.doubts[what] = self._rejects.doubts.get(what, 0) + count

    def array(self, name: str) -> Any:
        """Returns a column as one `pyarrow.Array`."""
        column = self._table.column(self._layout.columns[name])
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    def floats(self, name: str) -> NDArray[np.float64]:
        """Returns a column as float64 [n], NaN where nothing is; other text is refused."""
        column = self.array(name)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = self._parse(column, name)
        column = pc.cast(column, pa.float64(), safe=False)
        return column_values(column, pa.float64(), np.float64, np.nan, name)

    def codes(self, symbols: Symbols) -> NDArray[np.int32]:
        """Returns numbers of the symbols, int32 [n]; those not acceptable are refused."""
        if not self.has("symbol"):
            if symbols.only is None:
                raise InvalidInputError(
                    "expected a column symbol, ts_code, code or ticker, was none; name the symbol "
                    "of the file by --symbol"
                )
            return np.full(len(self), symbols.code(symbols.only), np.int32)
        column = self.array("symbol")
        if not pa.types.is_dictionary(column.type):
            if pa.types.is_integer(column.type):
                # Codes of six digits lose their zeros in numbers.
                column = pc.utf8_lpad(column.cast(pa.utf8()), 6, "0")
            column = pc.dictionary_encode(column)
        texts = column.dictionary.to_pylist()
        code_of = np.array([symbols.code(text) for text in texts] + [-1], np.int32)
        index = column_values(column.indices, pa.int32(), np.int32, -1, "symbol")
        codes: NDArray[np.int32] = code_of[index]
        if (codes < 0).any():
            for place in np.flatnonzero(code_of[:-1] < 0).tolist():
                self.refuse(index == place, symbols.problem(texts[place]))
            self.refuse(index < 0, symbols.problem(None))
        return codes

    def times(self) -> Times:
        """Returns the times; rows without one are refused."""
        clock = self.array("clock") if self.has("clock") else None
        times = read_times(self.array("time"), clock)
        self.refuse(times.values == NO_TIME, "time is missing or not readable")
        return times

    def _parse(self, column: Any, name: str) -> Any:
        texts = pc.utf8_trim_whitespace(column)
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        try:
            return texts.cast(pa.float64())
        except pa.ArrowInvalid:
            numbers = [_number(text) for text in texts.to_pylist()]
            self.refuse(np.array([n is None for n in numbers]), f"{name} is not a number")
            return pa.array([np.nan if n is None else n for n in numbers], pa.float64())


def _number(text: str | None) -> float | None:
    try:
        return np.nan if text is None else float(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class BarRules:
    """How times of a file become those of bars.

    Attributes:
        interval: Of the bars.
        label: Which moment of a bar the file's time is.
        zone: Time zone of times without one.
        tushare_units: Whether volume is in lots and amount in thousands.
    """

    interval: Interval
    label: Label
    zone: str
    tushare_units: bool


def read_bars(columns: Columns, symbols: Symbols, rules: BarRules) -> BarColumns:
    """Returns the acceptable bars of a piece, in the order of the file; `columns` has the others.

    Args:
        columns: The piece.
        symbols: Grows by those that are new.
        rules: What the file's times mean.
    """
    codes = columns.codes(symbols)
    times = columns.times()
    prices = {name: columns.floats(name) for name in _PRICES}
    lots, thousands = (_LOT_SHARES, _THOUSAND) if rules.tushare_units else (1.0, 1.0)
    nothing = np.full(len(columns), np.nan)
    volume, amount, trades = (
        columns.floats(name) if columns.has(name) else nothing
        for name in ("volume", "amount", "trades")
    )
    _check_prices(columns, prices)
    for name, values in (("volume", volume), ("amount", amount), ("trades", trades)):
        columns.refuse((values < 0) | np.isinf(values), f"{name} is negative or infinite")
    good = columns.good
    times = Times(times.values[good], times.is_utc)
    start, end = _bar_times(times, codes[good], symbols, rules)
    count = trades[good]
    bars = BarColumns(
        code=codes[good],
        start_time=start,
        end_time=end,
        open=prices["open"][good],
        high=prices["high"][good],
        low=prices["low"][good],
        close=prices["close"][good],
        volume=np.nan_to_num(volume[good] * lots),
        amount=amount[good] * thousands,
        trades=np.where(np.isnan(count), NO_TRADES, count).astype(np.int64),
        revision=np.zeros(len(start), np.int32),
    )
    early = bars.end_time < MIN_EVENT_TIME_NS
    if early.any():
        bad = np.zeros(len(columns), np.bool_)
        bad[np.flatnonzero(good)[early]] = True
        columns.refuse(bad, "time is before 1973-03-03")
        bars = bars.take(~early)
    return bars


def _check_prices(columns: Columns, prices: dict[str, NDArray[np.float64]]) -> None:
    for name, values in prices.items():
        columns.refuse(~((values > 0) & (values < np.inf)), f"{name} is not a number above 0")
    high, low = prices["high"] * (1 + _ROUNDING), prices["low"] * (1 - _ROUNDING)
    for name in ("open", "close"):
        # Real files have such rows; who reads them decides.
        outside = (prices[name] > high) | (prices[name] < low)
        columns.doubt(outside, f"{name} is not between low and high")


def _bar_times(
    times: Times, codes: NDArray[np.int32], symbols: Symbols, rules: BarRules
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns start and end of bars, int64 ns UTC."""
    interval = rules.interval
    if not interval.is_session:
        utc = to_utc(times, zone_of(rules.zone))
        return (utc - interval.ns, utc) if rules.label == "end" else (utc, utc + interval.ns)
    start, end = np.empty_like(times.values), np.empty_like(times.values)
    exact = rules.label == "end" and not times.are_dates
    days = symbols.days()
    kinds = list(dict.fromkeys(days))
    kind_of = np.array([kinds.index(kind) for kind in days], np.int32)
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(kind_of[codes] == number) if len(kinds) > 1 else slice(None)
        # The last moment of a day that ends at midnight belongs to it.
        values = times.values[rows] - int(exact)
        if times.is_utc:
            start[rows], end[rows] = kind.of_moments(values)
        else:
            start[rows], end[rows] = kind.of_dates(values // _DAY_NS * _DAY_NS)
    if exact:
        end = to_utc(times, zone_of(rules.zone))
        start = np.minimum(start, end - 1)
    return start, end


def infer_interval(codes: NDArray[np.int32], times: NDArray[np.int64]) -> Interval:
    """Returns the interval that most neighbours of the same symbol are apart.

    Args:
        codes: int32 [n], symbols.
        times: int64 [n], ns.

    Raises:
        InvalidInputError: There is none, or it is longer than a day.
    """
    order = np.lexsort((times, codes))
    steps = np.diff(times[order])[np.diff(codes[order]) == 0]
    steps = steps[steps > 0]
    if not len(steps):
        raise InvalidInputError(
            "expected two bars of a symbol to tell their interval, was none; name it by --interval"
        )
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[np.argmax(counts)])
    if 0.8 * _DAY_NS <= step <= 1.2 * _DAY_NS:
        return Interval.parse("1d")
    if step > _DAY_NS or step % 10**9:
        raise InvalidInputError(
            f"expected bars of at most a day, was {step / 10**9:g} s between most of them; name "
            "what they are by --interval"
        )
    return Interval.of_seconds(step // 10**9)


def needed(layout: Layout) -> tuple[Sequence[str], Sequence[str]]:
    """Returns the file's columns that are read, and which of them are numbers."""
    texts = ("symbol", "time", "clock")
    numbers = [column for name, column in layout.columns.items() if name not in texts]
    return list(dict.fromkeys(layout.columns.values())), numbers
