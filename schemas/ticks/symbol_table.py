"""Symbols to small integers: a compiled hash table that grows, and the names in order."""

import numpy as np

from schemas.errors import InvalidInputError
from schemas.symbols import MAX_SYMBOL_BYTES, symbol_problem
from schemas.ticks.columns import (
    BoolArray,
    ByteArray,
    Int32Array,
    Int64Array,
    TableArrays,
    UInt64Array,
)
from schemas.ticks.compiled import GROW, ODD, PADDING, Int, Word, compiled, load_u64, low_bytes

_COUNT, _LIMIT = 0, 1
_EMPTY = -1
_INITIAL_SLOTS = 1024

# Which bytes a symbol may have, as in `schemas.symbols.SYMBOL_PATTERN`.
_ALLOWED = np.zeros(256, np.bool_)
_ALLOWED[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/^=-")] = True


@compiled
def _first_slot(w0: Word, w1: Word, w2: Word, w3: Word, slots: Int32Array) -> Int:
    h = w0 * np.uint64(0x9E3779B97F4A7C15) ^ w1 * np.uint64(0xC2B2AE3D27D4EB4F)
    h ^= w2 * np.uint64(0x165667B19E3779F9) ^ w3 * np.uint64(0x27D4EB2F165667C5)
    h ^= h >> np.uint64(32)
    h *= np.uint64(0xD6E8FEB86659FD93)
    h ^= h >> np.uint64(32)
    return np.int64(h & np.uint64(len(slots) - 1))


@compiled
def intern_bytes(
    buf: ByteArray,
    p: Int,
    length: Int,
    keys: UInt64Array,
    slots: Int32Array,
    meta: Int64Array,
    allowed: BoolArray,
) -> Int:
    """Code of the symbol of `length` bytes at `p`, given to it now if it is new.

    Returns `ODD` where the symbol is malformed or the limit is reached, `GROW` where there is no
    room for a new one.
    """
    if length < 1 or length > MAX_SYMBOL_BYTES:
        return ODD
    w0 = low_bytes(load_u64(buf, p), length)
    w1 = np.uint64(0)
    w2 = np.uint64(0)
    w3 = np.uint64(0)
    if length > 8:
        w1 = low_bytes(load_u64(buf, p + 8), length - 8)
        if length > 16:
            w2 = low_bytes(load_u64(buf, p + 16), length - 16)
            if length > 24:
                w3 = low_bytes(load_u64(buf, p + 24), length - 24)
    slot = _first_slot(w0, w1, w2, w3, slots)
    while True:
        code = np.int64(slots[slot])
        if code == _EMPTY:
            break
        if (
            keys[code, 0] == w0
            and keys[code, 1] == w1
            and keys[code, 2] == w2
            and keys[code, 3] == w3
        ):
            return code
        slot = (slot + 1) & (len(slots) - 1)
    for i in range(p, p + length):
        if not allowed[buf[i]]:
            return ODD
    code = meta[_COUNT]
    if code >= meta[_LIMIT]:
        return ODD
    if code >= len(keys):
        return GROW
    keys[code, 0] = w0
    keys[code, 1] = w1
    keys[code, 2] = w2
    keys[code, 3] = w3
    slots[slot] = code
    meta[_COUNT] = code + 1
    return code


@compiled
def forget_from(code: Int, table: TableArrays) -> None:
    """Takes back every symbol from `code` on.

    Clearing a slot is enough because only symbols that are taken back too were added after it.
    """
    keys, slots, meta, _ = table
    while meta[_COUNT] > code:
        last = meta[_COUNT] - 1
        slot = _first_slot(keys[last, 0], keys[last, 1], keys[last, 2], keys[last, 3], slots)
        while slots[slot] != last:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = _EMPTY
        meta[_COUNT] = last


@compiled
def _fill_slots(keys: UInt64Array, slots: Int32Array, count: Int) -> None:
    slots[:] = _EMPTY
    for code in range(count):
        slot = _first_slot(keys[code, 0], keys[code, 1], keys[code, 2], keys[code, 3], slots)
        while slots[slot] != _EMPTY:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = code


class SymbolTable:
    """Codes of symbols, given in order of first appearance and never changed.

    Args:
        max_symbols: Further symbols are refused.

    Attributes:
        names: The symbols; the index is the code.
        max_symbols: As given.
    """

    def __init__(self, max_symbols: int) -> None:
        self.max_symbols = max_symbols
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        self._slots: Int32Array = np.full(_INITIAL_SLOTS, _EMPTY, np.int32)
        self._keys: UInt64Array = np.zeros((_INITIAL_SLOTS // 2, 4), np.uint64)
        self._meta: Int64Array = np.array([0, max_symbols], np.int64)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def arrays(self) -> TableArrays:
        """What compiled code takes; ask again after `grow`.

        Keys are uint64[room, 4], the symbols' bytes with zeros behind; slots int32[power of two],
        open addressing, -1 is empty; then int64[2] of count and limit, and the alphabet, bool[256].
        """
        return self._keys, self._slots, self._meta, _ALLOWED

    def lookup(self, symbol: str) -> int:
        """Returns the code of `symbol`, or -1."""
        return self._codes.get(symbol, -1)

    @property
    def is_full(self) -> bool:
        """Whether a new symbol would be refused."""
        return len(self.names) >= self.max_symbols

    def intern(self, symbol: str) -> int:
        """Returns the code of `symbol`, given to it now if it is new.

        Raises:
            InvalidInputError: The symbol is malformed, or there are `max_symbols` others.
        """
        code = self._codes.get(symbol, -1)
        if code >= 0:
            return code
        problem = symbol_problem(symbol)
        if problem or self.is_full:
            problem = problem or f"symbol {symbol} {self.full_reason()}"
            raise InvalidInputError(f"expected a symbol to add, was one to refuse: {problem}")
        raw = symbol.encode()
        padded = np.frombuffer(raw + bytes(PADDING), np.uint8)
        while True:
            code = int(intern_bytes(padded, 0, len(raw), *self.arrays))
            if code != GROW:
                break
            self.grow()
        self.sync()
        return code

    def full_reason(self) -> str:
        """Returns why a new symbol is refused when the table is full."""
        return (
            f"would be one more than the {self.max_symbols} symbols allowed on a partition "
            "(setting features.max_symbols)"
        )

    def grow(self) -> None:
        """Doubles the room; called when compiled code returns `GROW`."""
        room = len(self._keys)
        keys = np.zeros((room * 2, 4), np.uint64)
        keys[:room] = self._keys
        self._keys = keys
        self._slots = np.empty(room * 4, np.int32)
        _fill_slots(self._keys, self._slots, int(self._meta[_COUNT]))

    def sync(self) -> None:
        """Adds to `names` what compiled code has added to the table."""
        for code in range(len(self.names), int(self._meta[_COUNT])):
            name = self._keys[code].tobytes().rstrip(b"\0").decode("ascii")
            self.names.append(name)
            self._codes[name] = code
