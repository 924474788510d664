"""Ordinary JSON ticks, compiled: flat objects without escapes, alone or in an array.

Accepts a subset of what the library path accepts, with the same meaning; for everything else
(escapes, bytes outside ASCII, nested values, exponents, signs, anything broken) it returns `ODD`.
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
from schemas.ticks.compiled import GROW, ODD, Float, Int, clear_row, compiled, load_u64, row_ok
from schemas.ticks.numbers import parse_decimal, parse_integer, parse_time
from schemas.ticks.symbol_table import intern_bytes


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text[:8], "little"))


def _mask(text: bytes) -> np.uint64:
    return np.uint64((1 << (8 * min(len(text), 8))) - 1)


# Keys with their closing quote, as the first eight bytes and what follows.
_SYMBOL, _SYMBOL_MASK = _word(b'symbol"'), _mask(b'symbol"')
_TIME, _TIME_REST, _TIME_REST_MASK = _word(b"event_ti"), _word(b'me_ns"'), _mask(b'me_ns"')
_PRICE, _PRICE_MASK = _word(b'price"'), _mask(b'price"')
_SIZE, _SIZE_MASK = _word(b'size"'), _mask(b'size"')
_BID, _BID_MASK = _word(b'bid"'), _mask(b'bid"')
_ASK = _word(b'ask"')
_SEQUENCE = _word(b"sequence")
_VOLUME = _word(b'volume"')
_AMOUNT = _word(b'amount"')
_NULL, _TRUE, _FOUR = _word(b"null"), _word(b"true"), _mask(b"null")
_FALSE, _FIVE = _word(b"false"), _mask(b"false")

_HAS_SYMBOL, _HAS_TIME, _HAS_PRICE = 1, 2, 4
_HAS_ALL = 7


@compiled
def skip_space(buf: ByteArray, p: Int, end: Int) -> Int:
    """First position from `p` that is not white space, or `end`."""
    while p < end and (buf[p] == 32 or buf[p] == 10 or buf[p] == 13 or buf[p] == 9):
        p += 1
    return p


@compiled
def _string_end(buf: ByteArray, p: Int, end: Int) -> Int:
    """Position of the closing quote of a plain ASCII string that begins at `p`, or ODD."""
    while p < end:
        byte = buf[p]
        if byte == 34:
            return p
        if byte < 32 or byte == 92 or byte >= 128:
            return ODD
        p += 1
    return ODD


@compiled
def _skip_scalar(buf: ByteArray, p: Int, end: Int) -> Int:
    """Position behind the string, number or literal at `p`, or ODD."""
    byte = buf[p]
    if byte == 34:
        p = _string_end(buf, p + 1, end)
        return ODD if p < 0 else p + 1
    word = load_u64(buf, p)
    if p + 4 <= end and ((word & _FOUR) == _NULL or (word & _FOUR) == _TRUE):
        return p + 4
    if p + 5 <= end and (word & _FIVE) == _FALSE:
        return p + 5
    if byte == 45:
        p += 1
    _, p = parse_decimal(buf, p, end)
    return p


@compiled
def _optional_number(buf: ByteArray, p: Int, end: Int, absent: Float) -> tuple[Float, Int]:
    if p + 4 <= end and (load_u64(buf, p) & _FOUR) == _NULL:
        return absent, p + 4
    return parse_decimal(buf, p, end)


@compiled
def parse_object(
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
    """Parses the object at `p` into row `n`.

    Returns:
        The position behind it, or `ODD` or `GROW`.
    """
    clear_row(floats, longs, n)
    p += 1
    seen = 0
    symbol, symbol_end = 0, 0
    while True:
        p = skip_space(buf, p, end)
        if p >= end or buf[p] != 34:
            return ODD
        p += 1
        word = load_u64(buf, p)
        field = -1
        start = p
        if (word & _SYMBOL_MASK) == _SYMBOL:
            field = 0
            p += 7
        elif word == _TIME and (load_u64(buf, p + 8) & _TIME_REST_MASK) == _TIME_REST:
            field = 1
            p += 14
        elif (word & _PRICE_MASK) == _PRICE:
            field = 2
            p += 6
        elif (word & _SIZE_MASK) == _SIZE:
            field = 3
            p += 5
        elif (word & _BID_MASK) == _BID:
            field = 4
            p += 4
        elif (word & _BID_MASK) == _ASK:
            field = 5
            p += 4
        elif word == _SEQUENCE and buf[p + 8] == 34:
            field = 6
            p += 9
        elif (word & _SYMBOL_MASK) == _VOLUME:
            field = 7
            p += 7
        elif (word & _SYMBOL_MASK) == _AMOUNT:
            field = 8
            p += 7
        else:
            p = _string_end(buf, start, end)
            if p < 0:
                return ODD
            p += 1
        p = skip_space(buf, p, end)
        if p >= end or buf[p] != 58:
            return ODD
        p = skip_space(buf, p + 1, end)
        if p >= end:
            return ODD
        if field == 0:
            if buf[p] != 34:
                return ODD
            symbol = p + 1
            p = _string_end(buf, symbol, end)
            if p < 0:
                return ODD
            symbol_end = p
            p += 1
            seen |= _HAS_SYMBOL
        elif field == 1:
            quoted = buf[p] == 34
            if quoted:
                p += 1
            time, p = parse_time(buf, p, end)
            if p < 0:
                return ODD
            if quoted:
                if p >= end or buf[p] != 34:
                    return ODD
                p += 1
            longs[EVENT_TIME, n] = time
            seen |= _HAS_TIME
        elif field == 2:
            value, p = parse_decimal(buf, p, end)
            floats[PRICE, n] = value
            seen |= _HAS_PRICE
        elif field == 3:
            floats[SIZE, n], p = _optional_number(buf, p, end, 0.0)
        elif field == 4:
            floats[BID, n], p = _optional_number(buf, p, end, np.nan)
        elif field == 5:
            floats[ASK, n], p = _optional_number(buf, p, end, np.nan)
        elif field == 7:
            floats[VOLUME, n], p = _optional_number(buf, p, end, np.nan)
        elif field == 8:
            floats[AMOUNT, n], p = _optional_number(buf, p, end, np.nan)
        elif field == 6:
            if p + 4 <= end and (load_u64(buf, p) & _FOUR) == _NULL:
                longs[SEQUENCE, n] = -1
                p += 4
            else:
                longs[SEQUENCE, n], p = parse_integer(buf, p, end)
        else:
            p = _skip_scalar(buf, p, end)
        if p < 0:
            return ODD
        p = skip_space(buf, p, end)
        if p >= end:
            return ODD
        if buf[p] == 44:
            p += 1
        elif buf[p] == 125:
            break
        else:
            return ODD
    if seen != _HAS_ALL or not row_ok(floats, longs, n, latest):
        return ODD
    code = intern_bytes(buf, symbol, symbol_end - symbol, keys, slots, meta, allowed)
    if code < 0:
        return code
    ints[CODE, n] = code
    return p + 1


@compiled
def parse_json(
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
    p = skip_space(buf, p, end)
    if p >= end:
        return ODD
    if buf[p] == 123:
        p = parse_object(buf, p, end, n, latest, floats, longs, ints, keys, slots, meta, allowed)
        if p < 0:
            return p
        return n + 1 if skip_space(buf, p, end) == end else ODD
    if buf[p] != 91:
        return ODD
    capacity = floats.shape[1]
    while True:
        p = skip_space(buf, p + 1, end)
        if p >= end or buf[p] != 123:
            return ODD
        if n >= capacity:
            return GROW
        p = parse_object(buf, p, end, n, latest, floats, longs, ints, keys, slots, meta, allowed)
        if p < 0:
            return p
        n += 1
        p = skip_space(buf, p, end)
        if p >= end:
            return ODD
        if buf[p] == 93:
            return n if skip_space(buf, p + 1, end) == end else ODD
        if buf[p] != 44:
            return ODD
