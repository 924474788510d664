"""Messages that the compiled loop does not take: Arrow, and everything out of the ordinary."""

from collections.abc import Iterable
from itertools import chain

import numpy as np

from schemas.processing import INVALID, TOO_MANY_SYMBOLS, UNREADABLE, Refusal
from schemas.ticks.arrow_append import UNSEEN, append_rows
from schemas.ticks.arrow_library import ArrowRows, read_stream
from schemas.ticks.arrow_shapes import ArrowShapes
from schemas.ticks.columns import (
    AMOUNT,
    ASK,
    BID,
    CODE,
    EVENT_TIME,
    MESSAGE,
    PRICE,
    ROW,
    SEQUENCE,
    SIZE,
    VOLUME,
    ColumnBuffers,
    Int64Array,
)
from schemas.ticks.kinds import ARROW, JSON, PROTOBUF, SNIFF, kind_of, sniff, unknown_reason
from schemas.ticks.library import (
    MalformedMessageError,
    TickFields,
    json_tick,
    looks_like_json,
    parse_json,
    parse_protobuf,
    protobuf_ticks,
)
from schemas.ticks.rules import tick_problem
from schemas.ticks.symbol_table import SymbolTable


class OddMessages:
    """Appends messages one by one to the buffers of a decoder.

    Attributes:
        refusals: Of the call that `begin` opened.
        shapes: Of the Arrow streams seen so far.
    """

    def __init__(self, buffers: ColumnBuffers) -> None:
        self.refusals: list[Refusal] = []
        self.shapes = ArrowShapes()
        self._buffers = buffers
        self._symbols = SymbolTable(1)
        self._rows = 0
        self._bad: Int64Array = np.empty(1024, np.int64)
        self._bad_rows: list[int] = []
        self._first_reason, self._first_kind = "", INVALID

    def begin(self, symbols: SymbolTable) -> None:
        """Starts a call: no refusals yet, symbols from this table."""
        self.refusals = []
        self._symbols = symbols

    def add(
        self,
        k: int,
        value: bytes | None,
        view: memoryview,
        content_type: str | None,
        latest: int,
        wanted: frozenset[int] | None,
        rows: int,
    ) -> int:
        """Appends one message.

        Args:
            k: Index of the message.
            value: The message.
            view: The same bytes, followed by `PADDING` others.
            content_type: Its header, or None.
            latest: Largest event time allowed.
            wanted: Positions of the ticks to take, or None for all.
            rows: Rows so far.

        Returns:
            Rows now.
        """
        self._rows = rows
        self._bad_rows = []
        try:
            if value is None:
                raise MalformedMessageError("record has no value (a tombstone)")
            if not value:
                raise MalformedMessageError("message is empty")
            kind = kind_of(content_type)
            if kind == SNIFF:
                kind = sniff(value)
            if kind == ARROW:
                self._add_arrow(k, view, latest, wanted)
            elif kind == JSON:
                self._add_ticks(k, map(json_tick, parse_json(value)), latest, wanted)
            elif kind == PROTOBUF:
                ticks = _protobuf_or_json(value, latest, sniffed=content_type is None)
                self._add_ticks(k, ticks, latest, wanted)
            else:
                raise MalformedMessageError(unknown_reason(value, content_type))
        except MalformedMessageError as error:
            self.refusals.append(Refusal(k, None, str(error), UNREADABLE))
            return rows
        if self._bad_rows:
            refused = Refusal(k, tuple(self._bad_rows), self._reason(), self._first_kind)
            self.refusals.append(refused)
        return self._rows

    def _refuse(self, row: int, problem: tuple[str, str] | None) -> None:
        if not self._bad_rows:
            reason, self._first_kind = problem or ("", INVALID)
            self._first_reason = f"tick {row}: {reason}"
        self._bad_rows.append(row)

    def _reason(self) -> str:
        others = len(self._bad_rows) - 1
        return self._first_reason + (f" (and {others} more ticks refused)" if others else "")

    def _problem(self, tick: TickFields | str, latest: int) -> tuple[str, str] | None:
        """Returns what is wrong with a tick, in words, and of what kind it is."""
        if isinstance(tick, str):
            return tick, INVALID
        problem = tick_problem(*tick, latest=latest)
        if problem is not None:
            return problem, INVALID
        symbols = self._symbols
        if symbols.is_full and symbols.lookup(tick.symbol) < 0:
            return f"symbol {tick.symbol} {symbols.full_reason()}", TOO_MANY_SYMBOLS
        return None

    def _add_ticks(
        self, k: int, ticks: Iterable[TickFields | str], latest: int, wanted: frozenset[int] | None
    ) -> None:
        buffers = self._buffers
        for row, tick in enumerate(ticks):
            if wanted is not None and row not in wanted:
                continue
            problem = self._problem(tick, latest)
            if isinstance(tick, str) or problem is not None:
                self._refuse(row, problem)
                continue
            n = self._rows
            buffers.reserve(n + 1, n)
            floats, longs, ints = buffers.floats, buffers.longs, buffers.ints
            ints[CODE, n] = self._symbols.intern(tick.symbol)
            ints[MESSAGE, n] = k
            ints[ROW, n] = row
            longs[EVENT_TIME, n] = tick.event_time
            longs[SEQUENCE, n] = tick.sequence
            floats[PRICE, n] = tick.price
            floats[SIZE, n] = tick.size
            floats[BID, n] = tick.bid
            floats[ASK, n] = tick.ask
            floats[VOLUME, n] = tick.volume
            floats[AMOUNT, n] = tick.amount
            self._rows = n + 1

    def _add_arrow(
        self, k: int, view: memoryview, latest: int, wanted: frozenset[int] | None
    ) -> None:
        # All batches are read before the first row is added: a stream that breaks in the middle is
        # refused as a whole and leaves no symbols behind.
        batches = list(read_stream(view))
        if len(batches) == 1:
            self.shapes.learn(view, batches[0].batch.schema)
        if wanted is not None:
            ticks = chain.from_iterable(map(batch.tick, range(len(batch))) for batch in batches)
            self._add_ticks(k, ticks, latest, wanted)
            return
        first_row = 0
        for batch in batches:
            self._add_arrow_batch(k, batch, first_row, latest)
            first_row += len(batch)

    def _add_arrow_batch(self, k: int, batch: ArrowRows, first_row: int, latest: int) -> None:
        buffers, symbols, length = self._buffers, self._symbols, len(batch)
        buffers.reserve(self._rows + length + 1, self._rows)
        if len(self._bad) < length:
            self._bad = np.empty(length, np.int64)
        codes = np.full(max(1, len(batch.offsets) - 1), UNSEEN, np.int32)
        start = 0
        while start < length:
            self._rows, bad_count, start = append_rows(
                start,
                batch.index,
                batch.offsets,
                batch.text,
                batch.event_time,
                batch.price,
                batch.floats,
                batch.sequence,
                codes,
                k,
                first_row,
                latest,
                self._rows,
                buffers.arrays,
                symbols.arrays,
                self._bad,
            )
            symbols.sync()
            for row in self._bad[:bad_count].tolist():
                self._refuse(first_row + row, self._problem(batch.tick(row), latest))
            if start < length:
                symbols.grow()


def _protobuf_or_json(value: bytes, latest: int, *, sniffed: bool) -> Iterable[TickFields | str]:
    """Ticks of a protobuf message; one that only looks like it may be JSON after a line feed."""
    if not (sniffed and looks_like_json(value)):
        return protobuf_ticks(parse_protobuf(value))
    try:
        ticks = list(protobuf_ticks(parse_protobuf(value)))
    except MalformedMessageError:
        return map(json_tick, parse_json(value))
    for tick in ticks:
        if not isinstance(tick, str) and tick_problem(*tick, latest=latest) is None:
            return ticks
    try:
        return map(json_tick, parse_json(value))
    except MalformedMessageError:
        return ticks
