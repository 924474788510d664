"""State of all symbols of one partition as arrays: growth, undo log, chunks.

A symbol's slot is its code in the partition's symbol table. Slots are only ever appended, so a
chunk (a range of slots) is full before the next one begins.
"""

import json
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

# With the default feature set a chunk is about 200 kB; four fit into one transaction.
_CHUNK_SYMBOLS = 256
# Uncompressed; a chunk is one record, and the broker refuses records over 1 MiB.
_CHUNK_BYTES = 700_000
_NAMES_LENGTH = struct.Struct("<I")
_GROWTH = 2

Slots: TypeAlias = NDArray[np.int32]
Column: TypeAlias = NDArray[Any]


class Kind(NamedTuple):
    """What a column holds.

    Attributes:
        dtype: Of eight bytes.
        shape: Of what a slot has.
        unseen: What a symbol has that was never seen.
    """

    dtype: type[np.int64] | type[np.float64]
    shape: tuple[int, ...] = ()
    unseen: float = 0

    def column(self, capacity: int) -> Column:
        """Returns room for so many slots."""
        # Pages of zeros take no memory before they are used.
        column = np.zeros((capacity, *self.shape), self.dtype)
        if self.unseen:
            column[:] = self.unseen
        return column


class SlotState(ABC):
    """Arrays indexed by slot.

    Args:
        kinds: Of the columns.
        capacity: Slots to begin with.

    Attributes:
        known_until: int64 [capacity], restored state includes all messages below this offset.
        chunk_symbols: Slots in a chunk; 0 where not even one fits into a record.
    """

    def __init__(self, kinds: Sequence[Kind], capacity: int) -> None:
        self._kinds = kinds
        row_bytes = 8 * sum(math.prod(kind.shape) for kind in kinds)
        self.chunk_symbols = min(_CHUNK_SYMBOLS, _CHUNK_BYTES // row_bytes)
        self._undo: list[tuple[Slots, list[Column]]] = []
        self._allocate(capacity)

    def _allocate(self, capacity: int) -> None:
        self._columns = [kind.column(capacity) for kind in self._kinds]
        self.known_until: NDArray[np.int64] = np.zeros(capacity, np.int64)
        self._saved = np.zeros(capacity, np.bool_)
        self._name(*self._columns)

    @abstractmethod
    def _name(self, *columns: Column) -> None:
        """Gives new columns the names that they have in a subclass."""

    def _pack(self, raw: bytes) -> bytes:
        """Returns the rows of a chunk as they are stored."""
        return raw

    def _unpack(self, stored: bytes) -> bytes:
        return stored

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

    def remember(self, slots: Slots) -> None:
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
        rows = b"".join(column[start:end].tobytes() for column in self._columns)
        return b"".join([_NAMES_LENGTH.pack(len(text)), text, self._pack(rows)])

    def decode_chunk(self, payload: bytes) -> tuple[list[str], list[Column]]:
        """Returns the symbols of a chunk and their rows, in the order of the columns."""
        (length,) = _NAMES_LENGTH.unpack_from(payload)
        end = _NAMES_LENGTH.size + length
        names: list[str] = json.loads(payload[_NAMES_LENGTH.size : end])
        raw, position = self._unpack(payload[end:]), 0
        arrays = []
        for column in self._columns:
            shape = (len(names), *column.shape[1:])
            array = np.frombuffer(raw, column.dtype, math.prod(shape), position).reshape(shape)
            arrays.append(array)
            position += array.nbytes
        return names, arrays

    def load(self, slots: Slots, arrays: Sequence[Column], next_offset: int) -> None:
        """Sets slots to decoded rows that include everything below `next_offset`."""
        for column, content in zip(self._columns, arrays, strict=True):
            column[slots] = content
        self.known_until[slots] = next_offset
