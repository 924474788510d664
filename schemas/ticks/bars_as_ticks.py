"""Bars as ticks: a bar's close is the price, its volume the size, its end the event time."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.bars import BarColumns, decode_bars
from schemas.errors import InvalidInputError
from schemas.processing import INVALID, TOO_MANY_SYMBOLS, UNREADABLE, Refusal
from schemas.ticks.arrow_bounds import check_declared_sizes
from schemas.ticks.columns import Float64Array, Int32Array, Int64Array, TickColumns
from schemas.ticks.decoder import latest_event_times
from schemas.ticks.kinds import ARROW, SNIFF, kind_of, sniff
from schemas.ticks.library import MalformedMessageError
from schemas.ticks.rules import MIN_EVENT_TIME_NS, tick_problem
from schemas.ticks.symbol_table import SymbolTable

_REFUSED = -1


@dataclass(frozen=True)
class BarTicks(TickColumns):
    """Bars of one call as ticks; a bar has no sequence, no quotes and no cumulative columns.

    Attributes:
        open: float64, as the next two; finite and above 0.
        high: Not below `low`.
        low: See `high`.
        revision: 0 for the first version of a bar, then counted up, int32.
    """

    open: Float64Array
    high: Float64Array
    low: Float64Array
    revision: Int32Array


class BarTickDecoder:
    """Decodes blocks of bars (see `schemas.bars`); no input raises."""

    def decode(
        self,
        values: Sequence[bytes | None],
        content_types: Sequence[str | None] | None,
        timestamps_ms: Int64Array | None,
        symbols: SymbolTable,
    ) -> tuple[BarTicks, list[Refusal]]:
        """Decodes messages into columns.

        Args:
            values: Record values; None is a record without one.
            content_types: As those of `TickDecoder.decode`.
            timestamps_ms: As those of `TickDecoder.decode`.
            symbols: Gives codes to symbols; new ones are added.

        Returns:
            The accepted bars, and the refusals in message order, at most one per message.
        """
        latest = latest_event_times(len(values), timestamps_ms)
        parts, refusals = [_NOTHING], []
        for k, value in enumerate(values):
            kind = None if content_types is None else content_types[k]
            try:
                names, bars = _read(value, kind)
            except (MalformedMessageError, InvalidInputError) as error:
                refusals.append(Refusal(k, None, str(error), UNREADABLE))
                continue
            codes = _codes(names, bars, _acceptable(bars, int(latest[k])), symbols)
            good = np.flatnonzero(codes >= 0)
            parts.append(_ticks(bars.take(good), codes[good], k, good))
            if len(good) < len(bars):
                bad = np.flatnonzero(codes < 0)
                reason, kind = _reason(names, bars, int(bad[0]), int(latest[k]), symbols)
                others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
                refusals.append(Refusal(k, tuple(bad.tolist()), reason + others, kind))
        return BarTicks(
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES}
        ), refusals

    def warm_up(self) -> None:
        """Compiles or loads what is compiled."""
        SymbolTable(1).intern("WARM")


def _read(value: bytes | None, content_type: str | None) -> tuple[list[str], BarColumns]:
    """Returns the names and bars of one message.

    Raises:
        MalformedMessageError: It cannot be read.
        InvalidInputError: Likewise.
    """
    if value is None:
        raise MalformedMessageError("record has no value (a tombstone)")
    if not value:
        raise MalformedMessageError("message is empty")
    kind = kind_of(content_type)
    if (sniff(value) if kind == SNIFF else kind) != ARROW:
        raise MalformedMessageError(
            "expected a block of bars (Arrow IPC stream), was a message of another kind; "
            "is the source a topic of bars?"
        )
    check_declared_sizes(memoryview(value))
    try:
        with pa.ipc.open_stream(pa.py_buffer(value)) as reader:
            for batch in reader:
                batch.validate(full=True)
        names, bars = decode_bars(value)
        if not all(isinstance(name, str | None) for name in names):
            raise ValueError("column symbol is not text")
        return names, bars
    except (pa.ArrowException, ValueError, OSError, OverflowError, TypeError) as error:
        detail = " ".join(str(error).split())[:200]
        raise MalformedMessageError(f"broken Arrow stream: {detail}") from None


def _acceptable(bars: BarColumns, latest: int) -> NDArray[np.bool_]:
    good = (bars.end_time >= MIN_EVENT_TIME_NS) & (bars.end_time <= latest)
    for prices in (bars.open, bars.high, bars.low, bars.close):
        good &= np.isfinite(prices) & (prices > 0)
    good &= np.isfinite(bars.volume) & (bars.volume >= 0)
    return good & (bars.low <= bars.high) & (bars.revision >= 0)


def _codes(
    names: Sequence[str], bars: BarColumns, good: NDArray[np.bool_], symbols: SymbolTable
) -> NDArray[np.int32]:
    """Returns the code of each bar's symbol, `_REFUSED` for bars that are not acceptable.

    New symbols are added in the order in which their first acceptable bars come.
    """
    local, first = np.unique(bars.code[good], return_index=True)
    code_of = np.full(len(names), _REFUSED, np.int32)
    for entry in local[np.argsort(first)].tolist():
        try:
            code_of[entry] = symbols.intern(names[entry] or "")
        except InvalidInputError:
            continue
    if not len(names):
        return np.full(len(bars), _REFUSED, np.int32)
    return np.where(good, code_of[bars.code], np.int32(_REFUSED))


def _reason(
    names: Sequence[str], bars: BarColumns, row: int, latest: int, symbols: SymbolTable
) -> tuple[str, str]:
    """Returns what is wrong with a bar, in words, and of what kind it is."""
    symbol = names[bars.code[row]] or ""
    for name in ("open", "high", "low"):
        price = float(getattr(bars, name)[row])
        if not (isfinite(price) and price > 0):
            return f"bar {row}: {name} is {price!r}, expected a finite number above 0", INVALID
    if bars.low[row] > bars.high[row]:
        return f"bar {row}: low {bars.low[row]:g} is above high {bars.high[row]:g}", INVALID
    if bars.revision[row] < 0:
        return f"bar {row}: revision is {bars.revision[row]}, expected at least 0", INVALID
    problem = tick_problem(
        symbol, int(bars.end_time[row]), float(bars.close[row]), float(bars.volume[row]),
        nan, nan, -1, nan, nan, latest=latest,
    )  # fmt: skip
    if problem is not None:
        return f"bar {row}: {problem}", INVALID
    return f"bar {row}: symbol {symbol} {symbols.full_reason()}", TOO_MANY_SYMBOLS


def _ticks(
    bars: BarColumns, codes: NDArray[np.int32], message: int, rows: NDArray[np.intp]
) -> BarTicks:
    absent = np.full(len(bars), nan)
    return BarTicks(
        code=codes,
        event_time=bars.end_time,
        price=bars.close,
        size=bars.volume,
        bid=absent,
        ask=absent,
        volume=absent,
        amount=absent,
        sequence=np.full(len(bars), -1, np.int64),
        message=np.full(len(bars), message, np.int32),
        row=rows.astype(np.int32),
        open=bars.open,
        high=bars.high,
        low=bars.low,
        revision=bars.revision,
    )


_NOTHING = _ticks(BarColumns.empty(), np.empty(0, np.int32), 0, np.empty(0, np.intp))
_NAMES = tuple(BarTicks.__dataclass_fields__)
