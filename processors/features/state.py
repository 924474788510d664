"""State of all symbols of one partition: kernel rows, latest feature rows, undo log, chunks.

A symbol's slot is its code in the partition's symbol table. Slots are only ever appended, so a
chunk (a range of slots) is full before the next one begins.
"""

import json
import math
import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# With the default feature set a chunk is about 200 kB; four fit into one transaction.
_CHUNK_SYMBOLS = 256
# A chunk is one record, and the broker refuses records over 1 MiB.
_CHUNK_BYTES = 700_000
_NAME_LENGTH = struct.Struct("<I")
_GROWTH = 2

Slots = NDArray[np.int32]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class PartitionState:
    """Arrays indexed by slot.

    Attributes:
        kernel: float64 [capacity, width], the kernel's state; zeros are a symbol never seen.
        event_time: int64 [capacity], event time of the latest row, ns since 1970 (UTC).
        price: float64 [capacity], price of the latest row.
        row: int64 [capacity], identity of the latest row; -1 is none.
        values: float64 [capacity, features], features of the latest row.
        order: int64 [capacity, order width], what decides which ticks get a row (see
            `processors.order`); zeros are a symbol never seen.
        known_until: int64 [capacity], restored state includes all messages below this offset.
    """

    def __init__(
        self, width: int, features: int, capacity: int = 64, *, order_width: int = 0
    ) -> None:
        self._width, self._features, self._order_width = width, features, order_width
        row_bytes = 8 * (width + features + order_width + 3)
        self.chunk_symbols = max(1, min(_CHUNK_SYMBOLS, _CHUNK_BYTES // row_bytes))
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self.kernel: Floats = np.zeros((capacity, self._width))
        self.event_time: Integers = np.zeros(capacity, np.int64)
        self.price: Floats = np.zeros(capacity)
        self.row: Integers = np.full(capacity, -1, np.int64)
        self.values: Floats = np.full((capacity, self._features), np.nan)
        self.order: Integers = np.zeros((capacity, self._order_width), np.int64)
        self.known_until: Integers = np.zeros(capacity, np.int64)
        self._saved = np.zeros(capacity, np.bool_)
        self._undo: list[tuple[Slots, tuple[NDArray[np.float64] | Integers, ...]]] = []

    @property
    def _columns(self) -> tuple[NDArray[np.float64] | Integers, ...]:
        columns = self.kernel, self.event_time, self.price, self.row, self.values
        return (*columns, self.order) if self._order_width else columns

    def ensure(self, slots: int) -> None:
        """Makes room for this many slots."""
        capacity = len(self.row)
        if slots <= capacity:
            return
        old = (*self._columns, self.known_until, self._saved)
        undo = self._undo
        self._allocate(max(slots, capacity * _GROWTH))
        new = (*self._columns, self.known_until, self._saved)
        for target, source in zip(new, old, strict=True):
            target[:capacity] = source
        self._undo = undo

    def remember(self, slots: Slots) -> None:
        """Saves the state of slots that are about to change for the first time since a commit."""
        fresh = slots[~self._saved[slots]]
        if len(fresh):
            self._saved[fresh] = True
            self._undo.append((fresh.copy(), tuple(column[fresh] for column in self._columns)))

    def commit(self) -> None:
        """Forgets how to go back."""
        for slots, _ in self._undo:
            self._saved[slots] = False
        self._undo.clear()

    def rollback(self) -> None:
        """Puts every slot back to the last commit."""
        for slots, saved in self._undo:
            for column, content in zip(self._columns, saved, strict=True):
                column[slots] = content
        self.commit()

    def encode_chunk(self, chunk: int, names: Sequence[str]) -> bytes:
        """Returns a chunk's symbols and state.

        Args:
            chunk: Number of the chunk.
            names: Symbol of every slot.
        """
        start = chunk * self.chunk_symbols
        end = min(start + self.chunk_symbols, len(names))
        text = json.dumps(names[start:end], separators=(",", ":")).encode()
        arrays = [column[start:end].tobytes() for column in self._columns]
        return b"".join([_NAME_LENGTH.pack(len(text)), text, *arrays])

    def decode_chunk(self, payload: bytes) -> tuple[list[str], list[NDArray[np.generic]]]:
        """Returns the symbols of a chunk and their rows, in the order of the columns."""
        (length,) = _NAME_LENGTH.unpack_from(payload)
        position = _NAME_LENGTH.size + length
        names: list[str] = json.loads(payload[_NAME_LENGTH.size : position])
        arrays = []
        for column in self._columns:
            shape = (len(names), *column.shape[1:])
            count = math.prod(shape)
            array = np.frombuffer(payload, column.dtype, count, position).reshape(shape)
            arrays.append(array)
            position += array.nbytes
        return names, arrays

    def load(self, slots: Slots, arrays: Sequence[NDArray[np.generic]], next_offset: int) -> None:
        """Sets slots to decoded rows that include everything below `next_offset`."""
        for column, content in zip(self._columns, arrays, strict=True):
            column[slots] = content
        self.known_until[slots] = next_offset


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
