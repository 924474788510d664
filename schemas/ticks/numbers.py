"""JSON numbers to integers and exactly rounded doubles, compiled.

A number that these functions cannot convert exactly is left to a library (they return no position).
"""

import numpy as np

from schemas.ticks.columns import ByteArray
from schemas.ticks.compiled import (
    ODD,
    Flag,
    Float,
    Int,
    all_digits,
    compiled,
    eight_digits,
    load_u64,
)

# Powers of ten up to 10**22 are doubles without error.
_MAX_FRACTION = 22
_POWERS = 10.0 ** np.arange(_MAX_FRACTION + 1)
_EXACT_INTEGERS = np.int64(1) << np.int64(53)
_MAX_MANTISSA = np.int64(10**17)
# Dekker's constant, which splits a double into two halves of 26 bits.
_SPLIT = 134217729.0
# Above the error of the two-word quotient (2**-100), below what any decimal of 18 digits can come
# near a rounding boundary without being refused for it.
_SLACK = 2.0**-40


@compiled
def _divide(mantissa: Int, divisor: Float) -> tuple[Float, Flag]:
    """Returns (mantissa / divisor correctly rounded, True), or (0, False) where that is unsure."""
    high = float(mantissa)
    low = float(mantissa - np.int64(high))
    quotient = high / divisor
    # quotient * divisor without error (Dekker).
    t = _SPLIT * quotient
    q1 = t - (t - quotient)
    q2 = quotient - q1
    t = _SPLIT * divisor
    d1 = t - (t - divisor)
    d2 = divisor - d1
    product = quotient * divisor
    error = ((q1 * d1 - product) + q1 * d2 + q2 * d1) + q2 * d2
    rest = ((high - product) - error) + low
    correction = rest / divisor
    result = quotient + correction
    error = (quotient - result) + correction
    sure = result + error * (1.0 + _SLACK) == result and result + error * (1.0 - _SLACK) == result
    return result, sure


@compiled
def parse_decimal(buf: ByteArray, p: Int, end: Int) -> tuple[Float, Int]:
    """Parses a number without sign and exponent at `p`.

    Returns:
        (value, position behind it), or (0, ODD).
    """
    if p >= end or buf[p] < 48 or buf[p] > 57:
        return 0.0, ODD
    start = p
    mantissa = np.int64(0)
    while p < end:
        digit = np.int64(buf[p]) - 48
        if digit < 0 or digit > 9:
            break
        if mantissa >= _MAX_MANTISSA:
            return 0.0, ODD
        mantissa = mantissa * 10 + digit
        p += 1
    if buf[start] == 48 and p - start > 1:
        return 0.0, ODD
    fraction = 0
    if p < end and buf[p] == 46:
        p += 1
        start = p
        while p < end:
            digit = np.int64(buf[p]) - 48
            if digit < 0 or digit > 9:
                break
            if mantissa >= _MAX_MANTISSA:
                return 0.0, ODD
            mantissa = mantissa * 10 + digit
            p += 1
        fraction = p - start
        if fraction == 0 or fraction > _MAX_FRACTION:
            return 0.0, ODD
    if p < end and (buf[p] == 101 or buf[p] == 69):
        return 0.0, ODD
    if mantissa <= _EXACT_INTEGERS:
        # One operation on two doubles without error is rounded once.
        return float(mantissa) / _POWERS[fraction], p
    value, sure = _divide(mantissa, _POWERS[fraction])
    if sure:
        return value, p
    return 0.0, ODD


@compiled
def parse_integer(buf: ByteArray, p: Int, end: Int) -> tuple[Int, Int]:
    """Parses an integer of up to 18 digits without sign.

    Returns:
        (value, position behind it), or (0, ODD).
    """
    start = p
    value = np.int64(0)
    while p < end:
        digit = np.int64(buf[p]) - 48
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        p += 1
        if p - start > 18:
            return np.int64(0), ODD
    if p == start or (buf[start] == 48 and p - start > 1):
        return np.int64(0), ODD
    return value, p


@compiled
def parse_time(buf: ByteArray, p: Int, end: Int) -> tuple[Int, Int]:
    """Parses 18 or 19 digits, which is what nanoseconds since 1973 have.

    Returns:
        (value, position behind it), or (0, ODD).
    """
    if end - p < 18 or buf[p] == 48:
        return np.int64(0), ODD
    first, second = load_u64(buf, p), load_u64(buf, p + 8)
    if not (all_digits(first) and all_digits(second)):
        return np.int64(0), ODD
    value = eight_digits(first) * np.uint64(100_000_000) + eight_digits(second)
    start = p
    p += 16
    while p < end and buf[p] >= 48 and buf[p] <= 57:
        if p - start == 19:
            return np.int64(0), ODD
        value = value * np.uint64(10) + np.uint64(buf[p] - np.uint8(48))
        p += 1
    if p - start < 18 or value > np.uint64(0x7FFFFFFFFFFFFFFF):
        return np.int64(0), ODD
    return np.int64(value), p
