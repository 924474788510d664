"""One partition's work: bytes to ticks, ticks to bars, bars to blocks.

The state advances with `process` and `on_clock` and is permanent only after `commit`; `rollback`
takes it back. Replaying the same messages gives the same bars, however they are split into
batches; what the clock closed is not repeated by a replay, so it is stored at once.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from processors.bars.calendars import Calendars
from processors.bars.kernel import advance, close_silent, silent_symbols
from processors.bars.layout import (
    AMOUNT,
    C_,
    DUPLICATE,
    H_,
    L_,
    O_,
    OUT_END,
    OUT_MESSAGE,
    OUT_REVISION,
    OUT_SLOT,
    OUT_START,
    OUT_TIMES,
    OUT_TRADES,
    OUTSIDE,
    PRICES,
    TOO_LATE,
    VOLUME,
    Bytes,
    Codes,
    Emitted,
    Longs,
    Sessions,
    Ticks,
)
from processors.bars.rules import BarRules
from processors.bars.state import BarState, ClockedLedger
from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.tick_rows import rows_by_message, select_ticks
from schemas.bars import BarColumns, encode_bars, rows_per_bars_block
from schemas.processing import LATE_TICK, Block, MessageBatch, Produced, Refusal

if TYPE_CHECKING:
    from schemas.ticks import SymbolTable, TickColumns, TickDecoder

# So many chunks may have to be stored with what one look at the clock closes.
_CHUNKS_BY_CLOCK = 16
# Reasons in `Produced.dropped`.
_STRAY, _OUTSIDE = "unconfirmed_future", "outside_session"


class BarTask:
    """Makes the bars of one partition.

    Args:
        partition: Partition number.
        rules: What bars, and which ticks count.
        calendars: Sessions of the markets; shared between the tasks of a process.
        decoder: Bytes to columns; shared likewise.
        topics: Where bars go, for each interval of the rules.
        new_symbols: Makes an empty symbol table; a task has one of its own.
        idle_timeout_ns: A symbol that was silent for this long has its bars closed by the clock.
        snapshot_interval_s: Every changed part of the state is due for storing after this.
    """

    def __init__(
        self,
        partition: int,
        rules: BarRules,
        calendars: Calendars,
        decoder: "TickDecoder",
        topics: tuple[str, ...],
        new_symbols: "Callable[[], SymbolTable]",
        *,
        idle_timeout_ns: int,
        snapshot_interval_s: float = 30.0,
    ) -> None:
        self.partition = partition
        self._rules = rules
        self._calendars = calendars
        self._decoder = decoder
        self._topics = topics
        self._new_symbols = new_symbols
        self._idle_timeout_ns = idle_timeout_ns
        self._interval_s = snapshot_interval_s
        self._order = rules.order()
        self._lengths: Longs = np.array(
            [0 if interval.is_session else interval.ns for interval in rules.intervals], np.int64
        )
        self._workspace = GroupingWorkspace()
        self._rows_per_block = rows_per_bars_block()
        self._out = self._room(1024)
        self._empty()

    def _empty(self) -> None:
        self._symbols = self._new_symbols()
        self._state = BarState(
            len(self._lengths), self._rules.bars_per_interval, self._order.state_width
        )
        self._ledger = ClockedLedger(max(self._state.chunk_symbols, 1), self._interval_s)
        self._next_offset = 0
        self._markets_known = 0
        self._sessions = self._sessions_of(len(self._state.known_until))

    @property
    def chunk_symbols(self) -> int:
        """How many symbols' state fits into one record; 0 is none."""
        return self._state.chunk_symbols

    def reset(self) -> None:
        """Empties state and symbol table."""
        self._empty()

    def warm_up(self) -> None:
        """Runs every compiled function once, so that the first batch does not wait for it."""
        self._order.warm_up()
        state = BarState(len(self._lengths), 1, 1, 1)
        one, unit = np.ones(1, np.int64), np.ones(1)
        zero = np.zeros(1, np.int32)
        slots = group_by_slot(zero, self._workspace)[2]
        ticks = Ticks(zero, one, unit, unit, unit, unit, zero, one)
        self._advance(ticks, np.zeros(1, np.uint8), state)
        silent_symbols(1, 1, 1, 1, state.bars)
        close_silent(slots, 1, 1, state.bars, self._out)
        self._out.used[:] = 0

    def process(self, batch: MessageBatch, first_row: int) -> Produced:  # noqa: ARG002
        """Advances the bars over a batch and returns those that it closed."""
        began = time.perf_counter()
        ticks, refused = self._decode(batch)
        decoded = time.perf_counter()
        self._next_offset = int(batch.offsets[-1]) + 1
        if not len(ticks.code):
            return Produced(refused=refused, stage_seconds={"decode": decoded - began})
        outcome, stray = self._compute(ticks, batch.first_offset)
        computed = time.perf_counter()
        blocks = self._encode()
        encoded = time.perf_counter()
        stages = {
            "decode": decoded - began,
            "kernel": computed - decoded,
            "encode": encoded - computed,
        }
        dropped = {_STRAY: stray, _OUTSIDE: int(np.count_nonzero(outcome == OUTSIDE))}
        return Produced(
            0,
            blocks,
            refused,
            self._late(ticks, outcome),
            duplicates=int(np.count_nonzero(outcome == DUPLICATE)),
            dropped={reason: count for reason, count in dropped.items() if count},
            ticks=len(ticks.code),
            stage_seconds=stages,
        )

    def on_clock(self, now_ns: int) -> Produced | None:
        """Closes bars of silent symbols whose end has passed.

        At most a few chunks' worth at a time, since they are stored with the same commit.

        Args:
            now_ns: Wall clock, nanoseconds since 1970 (UTC).
        """
        symbols = len(self._symbols)
        lateness = self._rules.allowed_lateness_ns
        slots: Codes = silent_symbols(
            symbols, now_ns, self._idle_timeout_ns, lateness, self._state.bars
        )
        if not len(slots):
            return None
        chunks = slots // max(self.chunk_symbols, 1)
        slots = slots[chunks <= np.unique(chunks)[:_CHUNKS_BY_CLOCK][-1]]
        self._state.remember(slots)
        self._ledger.clocked(slots, self._next_offset)
        self._reserve(len(slots) * self._rules.bars_per_interval)
        close_silent(slots, now_ns, lateness, self._state.bars, self._out)
        return Produced(blocks=self._encode())

    def replay(self, batch: MessageBatch, first_row: int) -> int:  # noqa: ARG002
        """Advances restored state over a batch without output.

        Ticks that a symbol's restored state already includes are passed over.

        Returns:
            0: bars have no row numbers.
        """
        ticks, _ = self._decode(batch)
        self._next_offset = int(batch.offsets[-1]) + 1
        if len(ticks.code):
            self._make_room()
            new = batch.offsets[ticks.message] >= self._state.known_until[ticks.code]
            if new.any():
                self._compute(ticks, batch.first_offset, new)
                self._out.used[:] = 0
            self._state.commit()
        return 0

    def shift_rows(self, distance: int) -> None:
        """Does nothing: bars have no row numbers."""

    def commit(self) -> None:
        """Makes everything since the last commit permanent."""
        self._state.commit()
        self._ledger.commit()

    def rollback(self) -> None:
        """Puts the state back to the last commit."""
        self._state.rollback()
        self._ledger.rollback()

    def resume_point(self, offset: int, row: int) -> tuple[int, int]:
        """Returns offset and row from which stored chunks must be replayed; by default these."""
        return self._ledger.resume_point(offset, row)[0], row

    def due_chunks(self, now: float, budget_bytes: int) -> list[tuple[int, bytes]]:
        """Returns chunks to store with the next commit.

        Those that the clock has changed come first and in any case, the others for at most about
        `budget_bytes`.
        """
        names = self._symbols.names
        must = self._ledger.must_store(len(names))
        chunks: list[tuple[int, bytes]] = []
        for chunk in [*must, *(c for c in self._ledger.due(now, len(names)) if c not in must)]:
            if budget_bytes <= 0 and chunk not in must:
                break
            payload = self._state.encode_chunk(chunk, names)
            self._ledger.storing(chunk, len(names))
            chunks.append((chunk, payload))
            budget_bytes -= len(payload)
        return chunks

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Loads a stored chunk; chunks come in ascending order."""
        names, arrays = self._state.decode_chunk(payload)
        slots = np.array([self._symbols.intern(name) for name in names], np.int32)
        self._make_room()
        self._state.load(slots, arrays, next_offset)
        self._ledger.loaded(chunk, len(names))
        self._next_offset = max(self._next_offset, next_offset)

    def touch_all(self) -> None:
        """Does nothing: no table follows the bars."""

    def take_latest(self) -> None:
        """Returns nothing: no table follows the bars."""

    def _decode(self, batch: MessageBatch) -> "tuple[TickColumns, list[Refusal]]":
        return self._decoder.decode(
            batch.values, batch.content_types, batch.timestamps_ms, self._symbols
        )

    def _make_room(self) -> None:
        names, known = self._symbols.names, self._markets_known
        self._state.ensure(len(names))
        if known == len(names):
            return
        if len(names) > len(self._sessions.market):
            grown = self._sessions_of(len(self._state.known_until))
            grown.market[:known] = self._sessions.market[:known]
            self._sessions = grown
        for slot in range(known, len(names)):
            market = self._calendars.market(names[slot], self._rules.default_market)
            self._sessions.market[slot] = market
        self._markets_known = len(names)

    def _sessions_of(self, capacity: int) -> Sessions:
        """Returns room for the markets of so many symbols."""
        market, hint = np.zeros(capacity, np.int32), np.zeros(capacity, np.int64)
        return Sessions(self._calendars.segments, self._calendars.bounds, market, hint)

    def _compute(
        self, columns: "TickColumns", first_offset: int, only: NDArray[np.bool_] | None = None
    ) -> tuple[Bytes, int]:
        """Advances the state over ticks.

        Returns:
            What became of each tick, and how many were given up (see `advance`).
        """
        self._make_room()
        if only is not None and not only.all():
            columns = select_ticks(columns, only)
        codes = columns.code
        slots = group_by_slot(codes, self._workspace)[2]
        self._state.remember(slots)
        self._ledger.touched(slots, first_offset, 0, time.monotonic())
        watermarks = np.empty(len(codes), np.int64)
        outcome = self._order.judge(
            codes, columns.event_time, columns.sequence, self._state.order, watermarks
        )
        self._reserve(len(codes) + len(slots) * self._rules.bars_per_interval)
        ticks = Ticks(
            codes,
            columns.event_time,
            columns.price,
            columns.size,
            columns.volume,
            columns.amount,
            columns.message,
            watermarks,
        )
        return outcome, self._advance(ticks, outcome, self._state)

    def _advance(self, ticks: Ticks, outcome: Bytes, state: BarState) -> int:
        rules = self._rules
        return int(
            advance(
                ticks,
                outcome,
                state.bars,
                self._sessions,
                self._lengths,
                rules.allowed_lateness_ns,
                rules.corrects,
                rules.outside_session == "drop",
                self._out,
            )
        )

    def _room(self, rows: int) -> Emitted:
        intervals = len(self._lengths)
        return Emitted(
            np.zeros(intervals, np.int64),
            np.empty((intervals, rows, OUT_TIMES), np.int64),
            np.empty((intervals, rows, PRICES)),
        )

    def _reserve(self, rows: int) -> None:
        if rows > self._out.times.shape[1]:
            self._out = self._room(2 * rows)

    def _encode(self) -> list[Block]:
        """Returns what was emitted as blocks, and forgets it."""
        blocks = []
        for j, topic in enumerate(self._topics):
            for low in range(0, int(self._out.used[j]), self._rows_per_block):
                high = min(low + self._rows_per_block, int(self._out.used[j]))
                times, prices = self._out.times[j, low:high], self._out.prices[j, low:high]
                bars = BarColumns(
                    times[:, OUT_SLOT].astype(np.int32),
                    times[:, OUT_START],
                    times[:, OUT_END],
                    prices[:, O_],
                    prices[:, H_],
                    prices[:, L_],
                    prices[:, C_],
                    prices[:, VOLUME],
                    prices[:, AMOUNT],
                    times[:, OUT_TRADES],
                    times[:, OUT_REVISION].astype(np.int32),
                )
                value = encode_bars(self._symbols.names, bars)
                first, last = int(times[0, OUT_MESSAGE]), int(times[-1, OUT_MESSAGE])
                newest = int(times[:, OUT_END].max())
                blocks.append(Block(value, high - low, first, last, newest, topic))
        self._out.used[:] = 0
        return blocks

    def _late(self, ticks: "TickColumns", outcome: Bytes) -> list[Refusal]:
        reason = (
            "late: a bar of it is kept no more; raise bars.kept_bars"
            if self._rules.corrects
            else "late: further than bars.allowed_lateness_ms behind its symbol's watermark"
        )
        rows = rows_by_message(ticks, np.flatnonzero(outcome == TOO_LATE))
        return [
            Refusal(message, positions, reason, LATE_TICK) for message, positions in rows.items()
        ]
