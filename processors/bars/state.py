"""State of all symbols of one partition: open and kept bars, order, timers; undo log, chunks.

A symbol's slot is its code in the partition's symbol table. Slots are only ever appended, so a
chunk (a range of slots) is full before the next one begins.
"""

import json
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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

# Uncompressed; a chunk is one record, and the broker refuses records over 1 MiB.
_CHUNK_BYTES = 700_000
_CHUNK_SYMBOLS = 256
_NAMES_LENGTH = struct.Struct("<I")
# Most of the room for bars is empty, and zlib's fastest level sees that at 300 MB/s.
_LEVEL = 1
_GROWTH = 2

Column: TypeAlias = NDArray[Any]


class BarState:
    """Arrays indexed by slot.

    Args:
        intervals: How many intervals there are.
        bars: How many bars of each are held.
        order_width: Columns of a `TickOrder`'s state.
        capacity: Slots to begin with.

    Attributes:
        bars: See `BarArrays`.
        order: int64 [capacity, order_width], see `TickOrder`.
        known_until: int64 [capacity], restored state includes all messages below this offset.
        chunk_symbols: Slots in a chunk; 0 where not even one fits into a record.
    """

    def __init__(self, intervals: int, bars: int, order_width: int, capacity: int = 64) -> None:
        self._shapes = (
            (intervals, HEADS),
            (intervals, bars, TIMES),
            (intervals, bars, PRICES),
            (MARKS,),
            (TOTALS,),
            (order_width,),
        )
        self._kinds = (np.int64, np.int64, np.float64, np.int64, np.float64, np.int64)
        row_bytes = 8 * sum(math.prod(shape) for shape in self._shapes)
        self.chunk_symbols = min(_CHUNK_SYMBOLS, _CHUNK_BYTES // row_bytes)
        self._undo: list[tuple[Codes, list[Column]]] = []
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        kinds = zip(self._shapes, self._kinds, strict=True)
        self._columns: list[Column] = [np.zeros((capacity, *s), kind) for s, kind in kinds]
        self.bars = BarArrays(*self._columns[:-1])
        self.order: Longs = self._columns[-1]
        self.known_until: Longs = np.zeros(capacity, np.int64)
        self._saved = np.zeros(capacity, np.bool_)

    def ensure(self, slots: int) -> None:
        """Makes room for this many slots."""
        capacity = len(self.known_until)
        if slots <= capacity:
            return
        old = (*self._columns, self.known_until, self._saved)
        self._allocate(max(slots, capacity * _GROWTH))
        new = (*self._columns, self.known_until, self._saved)
        for target, source in zip(new, old, strict=True):
            target[:capacity] = source

    def remember(self, slots: Codes) -> None:
        """Saves the state of slots that are about to change for the first time since a commit."""
        fresh = slots[~self._saved[slots]]
        if len(fresh):
            self._saved[fresh] = True
            self._undo.append((fresh.copy(), [column[fresh] for column in self._columns]))

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
        arrays = b"".join(column[start:end].tobytes() for column in self._columns)
        return b"".join([_NAMES_LENGTH.pack(len(text)), text, zlib.compress(arrays, _LEVEL)])

    def decode_chunk(self, payload: bytes) -> tuple[list[str], list[Column]]:
        """Returns the symbols of a chunk and their rows, in the order of the columns."""
        (length,) = _NAMES_LENGTH.unpack_from(payload)
        position = _NAMES_LENGTH.size + length
        names: list[str] = json.loads(payload[_NAMES_LENGTH.size : position])
        raw, position = zlib.decompress(payload[position:]), 0
        arrays = []
        for column in self._columns:
            shape = (len(names), *column.shape[1:])
            array = np.frombuffer(raw, column.dtype, math.prod(shape), position).reshape(shape)
            arrays.append(array)
            position += array.nbytes
        return names, arrays

    def load(self, slots: Codes, arrays: Sequence[Column], next_offset: int) -> None:
        """Sets slots to decoded rows that include everything below `next_offset`."""
        for column, content in zip(self._columns, arrays, strict=True):
            column[slots] = content
        self.known_until[slots] = next_offset


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
