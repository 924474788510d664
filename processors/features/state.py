"""State of all symbols of one partition: kernel rows, latest feature rows; which chunks changed."""

import numpy as np
from numpy.typing import NDArray

from processors.slot_state import Column, Kind, Slots, SlotState

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class PartitionState(SlotState):
    """What a feature set needs to go on.

    Attributes:
        kernel: float64 [capacity, width], the kernel's state; zeros are a symbol never seen.
        event_time: int64 [capacity], event time of the latest row, ns since 1970 (UTC).
        price: float64 [capacity], price of the latest row.
        row: int64 [capacity], identity of the latest row; -1 is none.
        values: float64 [capacity, features], features of the latest row.
        order: int64 [capacity, order width], what decides which ticks get a row (see
            `processors.order`); zeros are a symbol never seen.
    """

    def __init__(
        self, width: int, features: int, capacity: int = 64, *, order_width: int = 0
    ) -> None:
        kinds = (
            Kind(np.float64, (width,)),
            Kind(np.int64),
            Kind(np.float64),
            Kind(np.int64, unseen=-1),
            Kind(np.float64, (features,), unseen=np.nan),
            Kind(np.int64, (order_width,)),
        )
        super().__init__(kinds, capacity)
        self.chunk_symbols = max(1, self.chunk_symbols)

    def _name(self, *columns: Column) -> None:
        self.kernel: Floats
        self.event_time: Integers
        self.price: Floats
        self.row: Integers
        self.values: Floats
        self.order: Integers
        self.kernel, self.event_time, self.price, self.row, self.values, self.order = columns


class ChunkLedger:
    """Which chunks differ from what is stored, since which offset and since when."""

    def __init__(self, chunk_symbols: int, interval_s: float) -> None:
        self._size = chunk_symbols
        self._interval_s = interval_s
        self._dirty: dict[int, tuple[int, int, float]] = {}
        self._stored_symbols: dict[int, int] = {}
        self._storing: dict[int, int] = {}

    def touched(self, slots: Slots, offset: int, row: int, now: float) -> None:
        """Notes that a batch beginning at `offset` and `row` changes these slots."""
        for chunk in np.unique(slots // self._size).tolist():
            self._dirty.setdefault(chunk, (offset, row, now))

    def loaded(self, chunk: int, symbols: int) -> None:
        """Notes that a stored chunk was restored."""
        self._stored_symbols[chunk] = symbols

    def resume_point(self, offset: int, row: int) -> tuple[int, int]:
        """Returns offset and row from which stored chunks must be replayed.

        Chunks that are part of the coming commit count as stored.

        Args:
            offset: Next offset, the answer where nothing has changed.
            row: Next row, likewise.
        """
        unstored = (entry[:2] for chunk, entry in self._dirty.items() if chunk not in self._storing)
        return min(unstored, default=(offset, row))

    def due(self, now: float, symbols: int) -> list[int]:
        """Returns the chunks to store, in an order in which they may be stored.

        A chunk with symbols that no stored version has goes before any later one: a restore can
        then append what it replays behind what it loaded.

        Args:
            now: Monotonic time in seconds; infinity makes every changed chunk due.
            symbols: Number of symbols of the partition.
        """

        def urgency(chunk: int) -> tuple[bool, float]:
            filled = min(symbols - chunk * self._size, self._size)
            complete = self._stored_symbols.get(chunk, 0) >= filled
            return complete, self._dirty[chunk][2] if complete else chunk

        late = (c for c, (_, _, since) in self._dirty.items() if now - since >= self._interval_s)
        return sorted(late, key=urgency)

    def storing(self, chunk: int, symbols: int) -> None:
        """Notes that a chunk is part of the coming commit."""
        self._storing[chunk] = min(symbols - chunk * self._size, self._size)

    def commit(self) -> None:
        """What was being stored is stored."""
        for chunk, symbols in self._storing.items():
            self._dirty.pop(chunk, None)
            self._stored_symbols[chunk] = symbols
        self._storing.clear()

    def rollback(self) -> None:
        """What was being stored is not."""
        self._storing.clear()
