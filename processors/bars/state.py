"""State of all symbols of one partition: open and kept bars, order, timers; chunks of the clock."""

import math
import zlib

import numpy as np

from processors.bars.layout import (
    HEADS,
    MARKS,
    PRICES,
    TIMES,
    TOTALS,
    BarArrays,
    Codes,
    Longs,
)
from processors.features.state import ChunkLedger
from processors.slot_state import Column, Kind, SlotState

# Most of the room for bars is empty, and zlib's fastest level sees that at 300 MB/s.
_LEVEL = 1


class BarState(SlotState):
    """What bars need to go on.

    Args:
        intervals: How many intervals there are.
        bars: How many bars of each are held.
        order_width: Columns of a `TickOrder`'s state.
        capacity: Slots to begin with.

    Attributes:
        bars: See `BarArrays`.
        order: int64 [capacity, order_width], see `TickOrder`.
    """

    def __init__(self, intervals: int, bars: int, order_width: int, capacity: int = 64) -> None:
        kinds = (
            Kind(np.int64, (intervals, HEADS)),
            Kind(np.int64, (intervals, bars, TIMES)),
            Kind(np.float64, (intervals, bars, PRICES)),
            Kind(np.int64, (MARKS,)),
            Kind(np.float64, (TOTALS,)),
            Kind(np.int64, (order_width,)),
        )
        super().__init__(kinds, capacity)

    def _name(self, *columns: Column) -> None:
        self.bars = BarArrays(*columns[:-1])
        self.order: Longs = columns[-1]

    def _pack(self, raw: bytes) -> bytes:
        return zlib.compress(raw, _LEVEL)

    def _unpack(self, stored: bytes) -> bytes:
        return zlib.decompress(stored)


class ClockedLedger(ChunkLedger):
    """A ledger that knows which chunks the clock has changed: they cannot wait."""

    def __init__(self, chunk_symbols: int, interval_s: float) -> None:
        super().__init__(chunk_symbols, interval_s)
        self._clocked: set[int] = set()
        self._clean_before: set[int] = set()

    def clocked(self, slots: Codes, offset: int) -> None:
        """Notes that the clock changes these slots while everything below `offset` is processed."""
        chunks = np.unique(slots // self._size).tolist()
        for chunk in chunks:
            if chunk not in self._dirty:
                self._dirty[chunk] = (offset, 0, -math.inf)
                self._clean_before.add(chunk)
        self._clocked.update(chunks)

    def must_store(self, symbols: int) -> list[int]:
        """Returns what the coming commit must store, in an order in which it may be stored.

        With the chunks that the clock has changed these are the ones before them of which no
        stored version has all symbols: a restore could not load what comes after them.

        Args:
            symbols: Number of symbols of the partition.
        """
        found = set(self._clocked)
        for chunk in range(max(self._clocked, default=0)):
            filled = min(symbols - chunk * self._size, self._size)
            if self._stored_symbols.get(chunk, 0) < filled:
                found.add(chunk)
        return sorted(found)

    def commit(self) -> None:
        """What was being stored is stored."""
        super().commit()
        self._clocked.clear()
        self._clean_before.clear()

    def rollback(self) -> None:
        """What was being stored is not, and what the clock did is undone."""
        super().rollback()
        for chunk in self._clean_before:
            del self._dirty[chunk]
        self._clocked.clear()
        self._clean_before.clear()
