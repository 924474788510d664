"""Bars of a range of event time and of a choice of symbols, computed as live computes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processors.bars.kernel import close_silent
from processors.bars.layout import (
    AMOUNT,
    C_,
    H_,
    L_,
    O_,
    OUT_END,
    OUT_MESSAGE,
    OUT_REVISION,
    OUT_SLOT,
    OUT_START,
    OUT_TRADES,
    VOLUME,
)
from processors.bars.task import BarTask
from processors.features.range_task import RowRange
from processors.features.tick_rows import select_ticks
from schemas.bars import BarColumns, encode_bars, rows_per_bars_block
from schemas.processing import Block, MessageBatch

# Bounds the memory for the bars that are still open at the end.
_SYMBOLS_AT_ONCE = 1000
_AFTER_EVERYTHING = 2**63 - 1


class RangeBarTask(BarTask):
    """A `BarTask` of one interval whose bars are selected before they are encoded.

    A bar belongs to the range by its end. Call `choose` before anything else.

    Attributes:
        tick_times: See `streams.kafka.replay.ports.ReplayTask`.
        tick_messages: Likewise.
        newest_ns: Newest event time of all ticks so far, nanoseconds since 1970 (UTC).
        rows_per_record: Most bars that fit into one record.
    """

    tick_times: NDArray[np.int64] = np.empty(0, np.int64)
    tick_messages: NDArray[Any] = tick_times
    newest_ns = 0
    rows_per_record = rows_per_bars_block()
    _range = RowRange(0)

    def choose(self, wanted: RowRange) -> None:
        """Sets which bars `select` returns."""
        self._range = wanted
        self._emitted: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None

    def select(self, batch: MessageBatch) -> "RangeBars | None":
        """Advances the bars over a batch and returns those of the closed ones that are wanted."""
        self._emitted = None
        self.process(batch, 0)
        self.commit()
        if self._emitted is None:
            return None
        times, prices = self._emitted
        return self._wanted(times, prices, batch.offsets[times[:, OUT_MESSAGE]])

    def finish(self) -> "RangeBars | None":
        """Returns the wanted bars that no tick has closed though their end has passed.

        It has passed where it lies in the range, or, of a range without end, before the newest tick
        of the partition. Live has closed them by the clock; nothing can follow this call.
        """
        wanted = self._range
        passed = self.newest_ns if wanted.end_ns is None else wanted.end_ns - 1
        found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        symbols = len(self._symbols)
        for first in range(0, symbols, _SYMBOLS_AT_ONCE):
            slots = np.arange(first, min(first + _SYMBOLS_AT_ONCE, symbols), dtype=np.int32)
            self._emitted = None
            self._reserve(len(slots) * self._rules.bars_per_interval)
            close_silent(slots, _AFTER_EVERYTHING, 0, self._state.bars, self._out)
            self._encode()
            if self._emitted is not None:
                found.append(self._emitted)
        if not found:
            return None
        times = np.concatenate([times for times, _ in found])
        prices = np.concatenate([prices for _, prices in found])
        inside = times[:, OUT_END] <= passed
        offsets = np.full(int(inside.sum()), max(self._next_offset - 1, 0), np.int64)
        return self._wanted(times[inside], prices[inside], offsets)

    def _wanted(
        self,
        times: NDArray[np.int64],
        prices: NDArray[np.float64],
        offsets: NDArray[np.int64],
    ) -> "RangeBars | None":
        ends = times[:, OUT_END]
        inside = ends >= self._range.start_ns
        if self._range.end_ns is not None:
            inside &= ends < self._range.end_ns
        if not inside.any():
            return None
        return RangeBars(self._symbols.names, times[inside], prices[inside], offsets[inside])

    def _decode(self, batch: MessageBatch) -> Any:
        ticks, refused = super()._decode(batch)
        self.tick_times, self.tick_messages = ticks.event_time, ticks.message
        if len(ticks):
            self.newest_ns = max(self.newest_ns, int(ticks.event_time.max()))
            keep = np.ones(len(ticks), np.bool_)
            if self._range.symbols is not None:
                names = np.array([n in self._range.symbols for n in self._symbols.names])
                keep &= names[ticks.code]
            if self._range.cold:
                keep &= ticks.event_time >= self._range.start_ns
            if not keep.all():
                ticks = select_ticks(ticks, keep)
        return ticks, refused

    def _encode(self) -> list[Block]:
        count = int(self._out.used[0])
        if count:
            self._emitted = self._out.times[0, :count].copy(), self._out.prices[0, :count].copy()
        self._out.used[:] = 0
        return []


class RangeBars:
    """Bars in memory of their own; see `streams.kafka.replay.ports.SelectedRows`."""

    def __init__(
        self,
        names: Sequence[str],
        times: NDArray[np.int64],
        prices: NDArray[np.float64],
        offsets: NDArray[np.int64],
    ) -> None:
        self.event_time = times[:, OUT_END]
        self.offsets = offsets
        self._names = names
        self._times = times
        self._prices = prices

    def encode(self, low: int, high: int) -> bytes:
        """Returns the record value of the bars [low, high)."""
        times, prices = self._times[low:high], self._prices[low:high]
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
        return encode_bars(self._names, bars)

    def keep(self) -> "RangeBars":
        """Returns itself: everything was copied."""
        return self
