"""Ordinary protobuf TickBatch messages, compiled.

Fields may come in any order and more than once (the last counts, as protobuf demands of scalars).
Unknown fields, and ticks that a rule refuses, are left to the library path (`ODD`).
"""

import numpy as np

from schemas.ticks.columns import (
    AMOUNT,
    ASK,
    BID,
    CODE,
    EVENT_TIME,
    PRICE,
    SEQUENCE,
    SIZE,
    VOLUME,
    BoolArray,
    ByteArray,
    Float64Array,
    Int32Array,
    Int64Array,
    UInt64Array,
)
from schemas.ticks.compiled import GROW, ODD, Int, clear_row, compiled, load_u64, row_ok
from schemas.ticks.symbol_table import intern_bytes

# Tags: field number << 3 | wire type.
_TICKS = _SYMBOL = 0x0A
_TIME = 0x11
_PRICE = 0x19
_SIZE = 0x21
_BID = 0x29
_ASK = 0x31
_SEQUENCE = 0x38
_VOLUME = 0x41
_AMOUNT = 0x49


@compiled
def varint(buf: ByteArray, p: Int, end: Int) -> tuple[Int, Int]:
    """(value, position behind it) of the varint at `p`, or (0, ODD) where it does not end."""
    value = np.uint64(0)
    shift = np.uint64(0)
    while p < end and shift < np.uint64(70):
        byte = np.uint64(buf[p])
        p += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            # The tenth byte holds one bit; a library knows what more in it means.
            if shift == np.uint64(63) and byte > np.uint64(1):
                return np.int64(0), ODD
            return np.int64(value), p
        shift += np.uint64(7)
    return np.int64(0), ODD


@compiled
def parse_tick(
    buf: ByteArray,
    p: Int,
    end: Int,
    n: Int,
    latest: Int,
    floats: Float64Array,
    longs: Int64Array,
    ints: Int32Array,
    bits: Int64Array,
    keys: UInt64Array,
    slots: Int32Array,
    meta: Int64Array,
    allowed: BoolArray,
) -> Int:
    """Parses the tick between `p` and `end` into row `n`.

    Returns:
        A position, or `ODD` or `GROW`.
    """
    clear_row(floats, longs, n)
    floats[PRICE, n] = 0.0
    longs[EVENT_TIME, n] = 0
    symbol, length = np.int64(0), np.int64(0)
    while p < end:
        tag = buf[p]
        p += 1
        if tag == _SYMBOL:
            # Of several only the last is looked at here; the others have to be text as well.
            if p >= end or buf[p] >= 128 or length > 0:
                return ODD
            length = np.int64(buf[p])
            symbol = p + 1
            p = symbol + length
            if p > end:
                return ODD
        elif tag == _SEQUENCE:
            longs[SEQUENCE, n], p = varint(buf, p, end)
            if p < 0 or longs[SEQUENCE, n] < 0:
                return ODD
        else:
            if p + 8 > end:
                return ODD
            word = np.int64(load_u64(buf, p))
            p += 8
            if tag == _TIME:
                longs[EVENT_TIME, n] = word
            elif tag == _PRICE:
                bits[PRICE, n] = word
            elif tag == _SIZE:
                bits[SIZE, n] = word
            elif tag == _BID:
                bits[BID, n] = word
            elif tag == _ASK:
                bits[ASK, n] = word
            elif tag == _VOLUME:
                bits[VOLUME, n] = word
            elif tag == _AMOUNT:
                bits[AMOUNT, n] = word
            else:
                return ODD
    if not row_ok(floats, longs, n, latest):
        return ODD
    code = intern_bytes(buf, symbol, length, keys, slots, meta, allowed)
    if code < 0:
        return code
    ints[CODE, n] = code
    return p


@compiled
def parse_protobuf(
    buf: ByteArray,
    p: Int,
    end: Int,
    n: Int,
    latest: Int,
    floats: Float64Array,
    longs: Int64Array,
    ints: Int32Array,
    keys: UInt64Array,
    slots: Int32Array,
    meta: Int64Array,
    allowed: BoolArray,
) -> Int:
    """Parses one message into rows from `n` on.

    Returns:
        How many rows there are now, or `ODD` or `GROW`.
    """
    bits = floats.view(np.int64)
    capacity = floats.shape[1]
    while p < end:
        if buf[p] != _TICKS:
            return ODD
        length, p = varint(buf, p + 1, end)
        if p < 0 or length < 0 or length > end - p:
            return ODD
        if n >= capacity:
            return GROW
        status = parse_tick(
            buf, p, p + length, n, latest, floats, longs, ints, bits, keys, slots, meta, allowed
        )
        if status < 0:
            return status
        p += length
        n += 1
    return n
