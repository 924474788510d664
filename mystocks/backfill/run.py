"""Loading one file: recognise, read, check, sort, send."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from mystocks.backfill.bars import (
    BarRules,
    Columns,
    Rejects,
    Symbols,
    infer_interval,
    needed,
    read_bars,
)
from mystocks.backfill.files import HistoryFile, open_file
from mystocks.backfill.layout import Label, Layout, recognise
from mystocks.backfill.send import BarSender
from mystocks.backfill.sessions import market_name, zone_name
from mystocks.backfill.times import NO_TIME, to_utc, zone_of
from schemas.bars import BarColumns, Interval
from schemas.errors import InvalidInputError
from schemas.settings import Settings
from schemas.topics import bars_topic

# Rows that are put in order of time together; about 90 bytes each, a few times over.
SORTED_ROWS = 2_000_000

# The interval is told from so many rows of so many symbols, or from all there are.
_SAMPLED_ROWS, _SAMPLED_SYMBOLS = 5000, 50

_Read = TypeVar("_Read")
Show = Callable[[float, int], None]


@dataclass(frozen=True)
class Options:
    """What the file does not say itself.

    Attributes:
        topic: Where to; None is ``market.bars.<interval>``, or the source of the feature set.
        interval: Of bars; None tells it from the distance of most of them.
        market: ``cn``, ``us``, ``us_futures`` or ``crypto``; None goes by the suffix of each
            symbol, and by ``bars.default_market`` where it has none.
        symbol: Of a file that has no column for it.
        timezone: Of times without one; None is the market's.
        label: Which moment of a bar its time is; None goes by the column's name.
        on_bad: Whether a bad row stops the loading or is left out.
    """

    topic: str | None = None
    interval: str | None = None
    market: str | None = None
    symbol: str | None = None
    timezone: str | None = None
    label: Label | None = None
    on_bad: Literal["fail", "skip"] = "fail"


def backfill(
    settings: Settings, name: str, options: Options, show: Show = lambda _part, _rows: None
) -> dict[str, Any]:
    """Loads a file into a topic.

    Args:
        settings: Where Kafka is.
        name: FILE.csv, FILE.parquet or FILE.arrow.
        options: What the file does not say itself.
        show: Is told how far it is, 0 to 1, and how many rows were sent.

    Returns:
        What was understood and what was done, as numbers and names.

    Raises:
        InvalidInputError: The file or an option is not acceptable, or a row is bad and `on_bad`
            says to stop.
        MyStocksError: The broker did not take everything.
    """
    began = time.monotonic()
    with open_file(name) as file:
        layout = recognise(file.names)
        load = _Load(settings, file, layout, options, show)
        summary = load.bars() if layout.kind == "bars" else load.ticks()
    seconds = time.monotonic() - began
    rows = summary["rows"]
    return {
        "file": name,
        "kind": layout.kind,
        **summary,
        "seconds": seconds,
        "rows_per_second": rows / seconds if seconds else 0.0,
    }


class _Load:
    """The loading of one file."""

    def __init__(
        self, settings: Settings, file: HistoryFile, layout: Layout, options: Options, show: Show
    ) -> None:
        self._settings = settings
        self._file = file
        self._layout = layout
        self._options = options
        self._show = show
        self._rejects = Rejects()
        market = None if options.market is None else market_name(options.market)
        self._symbols = Symbols(market, options.symbol, settings.bars.default_market)
        self._zone = options.timezone or zone_name(market)
        zone_of(self._zone)
        self._rows = 0
        self._part = 0.0

    def bars(self) -> dict[str, Any]:
        """Loads bars and returns the summary."""
        options = self._options
        interval = None if options.interval is None else Interval.parse(options.interval)
        pieces, rules = self._rules(self._pieces(), interval)
        topic = options.topic or bars_topic(rules.interval.name)
        sender = BarSender(self._settings, topic)
        ends: list[int] = []
        for group in self._groups(pieces, lambda piece: read_bars(piece, self._symbols, rules)):
            ordered = _are_ordered(group)
            for bars in group if ordered else [BarColumns.concatenate(group)]:
                ends += [int(bars.end_time.min()), int(bars.end_time.max())] if len(bars) else []
                sender.send(self._symbols.names, bars, self._sent)
        sender.flush()
        return {
            **self._summary(topic),
            "interval": rules.interval.name,
            "interval_from": "file" if interval is None else "option",
            "label": rules.label,
            "units": "tushare" if rules.tushare_units else "as in the file",
            "first_end_time_ns": min(ends, default=None),
            "last_end_time_ns": max(ends, default=None),
            "bytes": sender.bytes,
        }

    def ticks(self) -> dict[str, Any]:
        """Loads ticks and returns the summary."""
        from mystocks.backfill.ticks import TickSender

        topic = self._options.topic or self._settings.features.source_topic
        with TickSender(self._settings, topic) as sender:
            read = partial(sender.read, symbols=self._symbols, zone=self._zone)
            for group in self._groups(self._pieces(), read):
                sender.send(pa.concat_tables(group), self._sent)
        return self._summary(topic)

    def _pieces(self) -> Iterator[Columns]:
        row = 0
        for table, part in self._file.read(*needed(self._layout)):
            self._part = part
            yield Columns(table, self._layout, row, self._rejects)
            row += table.num_rows

    def _groups(
        self, pieces: Iterable[Columns], read: Callable[[Columns], _Read]
    ) -> Iterator[list[_Read]]:
        """Yields what is read of the pieces, about `SORTED_ROWS` at a time."""
        group: list[_Read] = []
        rows = 0
        for piece in pieces:
            group.append(read(piece))
            self._stop_if_bad()
            rows += len(piece)
            if rows >= SORTED_ROWS:
                yield group
                group, rows = [], 0
        if group:
            yield group

    def _rules(
        self, pieces: Iterator[Columns], interval: Interval | None
    ) -> tuple[Iterator[Columns], BarRules]:
        """Returns the same pieces, and what their times mean by the first of them."""
        seen: list[Columns] = []
        codes, times = [], []
        while interval is None or not seen:
            piece = next(pieces, None)
            if piece is None:
                break
            seen.append(piece)
            if interval is None:
                copy = piece.with_rejects(Rejects())
                code, moment = copy.codes(self._symbols), to_utc(copy.times(), zone_of(self._zone))
                known = (moment != NO_TIME) & (code >= 0) & (code < _SAMPLED_SYMBOLS)
                codes.append(code[known])
                times.append(moment[known])
                if sum(map(len, codes)) >= _SAMPLED_ROWS:
                    break
        if not any(map(len, seen)):
            raise InvalidInputError("expected rows, was none (FILE); correct it")
        if interval is None:
            interval = infer_interval(np.concatenate(codes), np.concatenate(times))
        label = self._options.label or self._layout.label
        rules = BarRules(interval, label, self._zone, self._layout.is_tushare)
        return chain(seen, pieces), rules

    def _sent(self, rows: int) -> None:
        self._rows += rows
        self._show(self._part, self._rows)

    def _stop_if_bad(self) -> None:
        rejects = self._rejects
        if self._options.on_bad == "skip" or not rejects.count:
            return
        row, reason = rejects.first[0]
        raise InvalidInputError(
            f"expected good rows, was not so: {reason} ({self._file.row_name(row)} of the file; "
            f"{rejects.count:,} such rows so far, {self._rows:,} sent before); correct the file "
            "and load it again, or leave bad rows out by --on-bad skip"
        )

    def _summary(self, topic: str) -> dict[str, Any]:
        return {
            "topic": topic,
            "rows": self._rows,
            "symbols": len(self._symbols.names),
            "timezone": self._zone,
            "rejected": self._rejects.count,
            "reasons": self._rejects.reasons,
            "doubtful": self._rejects.doubts,
            "first_rejected": [
                f"{self._file.row_name(row)}: {reason}" for row, reason in self._rejects.first
            ],
        }


def _are_ordered(parts: Sequence[BarColumns]) -> bool:
    """Whether the ends of the bars ascend from part to part and within each."""
    newest = 0
    for part in parts:
        ends = part.end_time
        if len(ends):
            if ends[0] < newest or (ends[1:] < ends[:-1]).any():
                return False
            newest = int(ends[-1])
    return True
