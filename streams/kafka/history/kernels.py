"""Compiled loops over rows; all run without the interpreter lock."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.ticks.compiled import Flag, Int, compiled

Floats: TypeAlias = NDArray[np.float64]
Longs: TypeAlias = NDArray[np.int64]
Ints: TypeAlias = NDArray[np.int32]

# Work space for distinct times; grows by this factor while it is too small.
_SLOTS, _GROWTH = 1 << 14, 8
_PRIME = np.uint64(0x9E3779B97F4A7C15)


@compiled
def _number_times(times: Longs, ids: Ints, distinct: Longs, keys: Longs, slots: Ints) -> Int:
    """Numbers the distinct times in order of appearance.

    Rows come sorted by symbol or by time, so the next number is mostly the same or the following.

    Args:
        times: int64 [n].
        ids: int32 [n], out: number of each row's time.
        distinct: int64 [capacity], out: time of each number.
        keys: int64 [power of two], work space.
        slots: int32 of the same length, all -1.

    Returns:
        How many there are, or -1 if the work space is too small.
    """
    mask = np.uint64(len(keys) - 1)
    shift = np.uint64(32)
    limit = min(len(keys) // 2, len(distinct))
    count = 0
    last = -1
    for i in range(len(times)):
        time = times[i]
        if last >= 0 and distinct[last] == time:
            ids[i] = last
            continue
        if last + 1 < count and distinct[last + 1] == time:
            last += 1
            ids[i] = last
            continue
        place = ((np.uint64(time) * _PRIME) >> shift) & mask
        while slots[place] >= 0 and keys[place] != time:
            place = (place + np.uint64(1)) & mask
        if slots[place] < 0:
            if count >= limit:
                return -1
            keys[place] = time
            slots[place] = count
            distinct[count] = time
            count += 1
        last = slots[place]
        ids[i] = last
    return count


def rank_times(times: Longs) -> tuple[Ints, Longs]:
    """Returns the rank of each time among the distinct ones, and these in ascending order."""
    ids = np.empty(len(times), np.int32)
    size = _SLOTS
    while True:
        distinct = np.empty(size // 2, np.int64)
        slots = np.full(size, -1, np.int32)
        count = _number_times(times, ids, distinct, np.empty(size, np.int64), slots)
        if count >= 0:
            break
        size *= _GROWTH
    distinct = distinct[:count].copy()
    if (distinct[1:] > distinct[:-1]).all():
        return ids, distinct
    order = np.argsort(distinct)
    rank = np.empty(count, np.int32)
    rank[order] = np.arange(count, dtype=np.int32)
    return rank[ids], distinct[order]


@compiled
def place_rows(codes: Ints, ids: Ints, starts: Longs, places: Ints) -> Flag:
    """Finds each row's place when rows are sorted by symbol, otherwise as they are.

    Args:
        codes: int32 [n], symbol of each row.
        ids: int32 [n], rank of each row's time.
        starts: int64 [symbols + 1], all 0; out: first place of each symbol, and the end.
        places: int32 [n], out.

    Returns:
        Whether the rows of each symbol are in time order.
    """
    symbols = len(starts) - 1
    for i in range(len(codes)):
        starts[codes[i] + 1] += 1
    for k in range(symbols):
        starts[k + 1] += starts[k]
    following = starts[:symbols].copy()
    newest = np.full(symbols, np.int32(-1))
    ordered = True
    for i in range(len(codes)):
        code = codes[i]
        places[i] = following[code]
        following[code] += 1
        ordered = ordered and ids[i] >= newest[code]
        newest[code] = ids[i]
    return ordered


@compiled
def put_floats(out: Floats, places: Ints, values: Floats) -> None:
    """Writes `values[i]` to `out[places[i]]`."""
    for i in range(len(places)):
        out[places[i]] = values[i]


@compiled
def put_ints(out: Ints, places: Ints, values: Ints) -> None:
    """Writes `values[i]` to `out[places[i]]`."""
    for i in range(len(places)):
        out[places[i]] = values[i]


@compiled
def checksum(words: NDArray[np.uint64]) -> Int:
    """Returns 64 bits that change with any one word, at the speed of memory."""
    a, b, c, d = _PRIME, _PRIME + np.uint64(1), _PRIME + np.uint64(2), _PRIME + np.uint64(3)
    whole = len(words) & ~3
    for i in range(0, whole, 4):
        a = (a ^ words[i]) * _PRIME
        b = (b ^ words[i + 1]) * _PRIME
        c = (c ^ words[i + 2]) * _PRIME
        d = (d ^ words[i + 3]) * _PRIME
    for i in range(whole, len(words)):
        a = (a ^ words[i]) * _PRIME
    shift = np.uint64(31)
    for lane in (b, c, d, np.uint64(len(words))):
        a ^= a >> shift
        a = (a ^ lane) * _PRIME
    return a


@compiled
def cut_runs(ids: Ints, runs: Longs, low: Int, high: Int) -> None:
    """Narrows runs of rows in time order to a range of times.

    Args:
        ids: int32 [n], rank of each row's time; ascending within a run.
        runs: int64 [k, 3], output row, first row and end; changed in place.
        low: First rank.
        high: Rank to stop before.
    """
    for k in range(len(runs)):
        first, end = runs[k, 1], runs[k, 2]
        runs[k, 1] = first + np.searchsorted(ids[first:end], low)
        runs[k, 2] = first + np.searchsorted(ids[first:end], high)


@compiled
def mark_times(ids: Ints, runs: Longs, used: NDArray[np.bool_]) -> None:
    """Sets `used` for the ranks that occur in the runs."""
    for k in range(len(runs)):
        for i in range(runs[k, 1], runs[k, 2]):
            used[ids[i]] = True


@compiled
def fill(out: Floats, values: Floats, ids: Ints, column_of: Ints, runs: Longs) -> None:
    """Writes the rows of the runs into an aligned block.

    Args:
        out: float64 [symbols, times].
        values: float64 [n].
        ids: int32 [n], rank of each row's time.
        column_of: int32 [ranks], column of each time in `out`.
        runs: int64 [k, 3], row of `out`, first row and end.
    """
    for k in range(len(runs)):
        row = out[runs[k, 0]]
        for i in range(runs[k, 1], runs[k, 2]):
            row[column_of[ids[i]]] = values[i]


@compiled
def raise_revisions(out: Ints, revisions: Floats, ids: Ints, column_of: Ints, runs: Longs) -> None:
    """As `fill`, but keeps the highest; `out` is int32 [symbols, times]."""
    for k in range(len(runs)):
        row = out[runs[k, 0]]
        for i in range(runs[k, 1], runs[k, 2]):
            column = column_of[ids[i]]
            row[column] = max(row[column], np.int32(revisions[i]))


@compiled
def fill_latest(
    out: Floats,
    values: Floats,
    revisions: Floats,
    best: Ints,
    ids: Ints,
    column_of: Ints,
    runs: Longs,
) -> None:
    """As `fill`, but only rows whose revision is the highest of their cell, `best`."""
    for k in range(len(runs)):
        line = runs[k, 0]
        for i in range(runs[k, 1], runs[k, 2]):
            column = column_of[ids[i]]
            if revisions[i] == best[line, column]:
                out[line, column] = values[i]
