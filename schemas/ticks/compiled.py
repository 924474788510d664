"""Compiled basics of the decoders: unaligned loads, digits, row rules.

The byte buffer that all of them read has `PADDING` bytes after its last message, so that a load of
eight bytes that begins inside a message stays inside the buffer. What lies behind a message's end
is never interpreted: every function checks positions against the end before it uses a byte.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from schemas.machine_code import kept_njit
from schemas.ticks.columns import (
    AMOUNT,
    ASK,
    BID,
    EVENT_TIME,
    PRICE,
    SEQUENCE,
    SIZE,
    VOLUME,
    Float64Array,
    Int64Array,
)
from schemas.ticks.rules import MIN_EVENT_TIME_NS

PADDING = 64

# What a parser of one message returns instead of a position.
ODD = -1  # not ordinary: a library decides
GROW = -2  # the symbol table or the columns are full: make room and come again

# Scalars of compiled code: numba infers their types, Python's and numpy's mixed.
Int: TypeAlias = Any
Float: TypeAlias = Any
Word: TypeAlias = Any
Flag: TypeAlias = Any

_Function = TypeVar("_Function", bound=Callable[..., Any])

_U8 = np.uint64(8)
_HIGH_NIBBLES = np.uint64(0xF0F0F0F0F0F0F0F0)
_DIGITS = np.uint64(0x3030303030303030)
_SIXES = np.uint64(0x0606060606060606)
_MIN_TIME = np.int64(MIN_EVENT_TIME_NS)


def compiled(function: _Function) -> _Function:
    """Compiles on first call: cached on disk, IEEE division, without the interpreter lock."""
    return cast(_Function, kept_njit(error_model="numpy")(function))


@intrinsic  # type: ignore[misc, unused-ignore]
def load_u64(typingctx, array, index):  # type: ignore[no-untyped-def]  # noqa: ARG001, D103
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        array_value = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = builder.gep(array_value.data, [args[1]])
        word = builder.bitcast(pointer, ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    _ = cgutils
    return types.uint64(array, types.int64), codegen


@compiled
def low_bytes(word: Word, count: Int) -> Word:
    """Keeps the `count` (0 to 8) first bytes of a word."""
    if count >= 8:
        return word
    return word & ((np.uint64(1) << (_U8 * np.uint64(count))) - np.uint64(1))


@compiled
def all_digits(word: Word) -> Flag:
    """Whether all eight bytes are ASCII digits."""
    return (word & _HIGH_NIBBLES) == _DIGITS and ((word + _SIXES) & _HIGH_NIBBLES) == _DIGITS


@compiled
def eight_digits(word: Word) -> Word:
    """Value of eight ASCII digits, first digit in the lowest byte."""
    word = ((word & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(2561)) >> _U8
    word = ((word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    return ((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)


@compiled
def clear_row(floats: Float64Array, longs: Int64Array, n: Int) -> None:
    """Sets what an absent optional field means."""
    floats[SIZE, n] = 0.0
    floats[BID, n] = np.nan
    floats[ASK, n] = np.nan
    floats[VOLUME, n] = np.nan
    floats[AMOUNT, n] = np.nan
    longs[SEQUENCE, n] = -1


@compiled
def row_ok(floats: Float64Array, longs: Int64Array, n: Int, latest: Int) -> Flag:
    """The numeric rules of `schemas.ticks.rules.tick_problem`, for row `n`."""
    price = floats[PRICE, n]
    if not (price > 0.0 and price < np.inf):
        return False
    floats[SIZE, n] += 0.0  # -0.0 becomes 0.0
    size = floats[SIZE, n]
    if not (size >= 0.0 and size < np.inf):
        return False
    time = longs[EVENT_TIME, n]
    if time < _MIN_TIME or time > latest:
        return False
    for k in (BID, ASK, VOLUME, AMOUNT):
        value = floats[k, n]
        if value < 0.0 or value == np.inf:
            return False
        floats[k, n] = value + 0.0
    return longs[SEQUENCE, n] >= -1
