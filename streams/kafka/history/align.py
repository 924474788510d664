"""Rows of segments as one block, aligned by symbol and event time."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InvalidInputError
from streams.kafka.history.columns import LENGTH, REVISION
from streams.kafka.history.kernels import cut_runs, fill, fill_latest, mark_times, raise_revisions
from streams.kafka.history.segments import Segment

# More threads only compete for memory.
_MOST_THREADS = 4


@dataclass
class _Piece:
    """The wanted rows of a segment.

    Attributes:
        segment: The segment.
        runs: int64 [k, 3], row of the block, first row in the segment and end.
        used: bool [ranks], times at which there are wanted rows.
        column_of: int32 [ranks], column in the block of each time.
    """

    segment: Segment
    runs: NDArray[np.int64]
    used: NDArray[np.bool_]
    column_of: NDArray[np.int32]


@dataclass(frozen=True)
class Aligned:
    """Symbols, event times (int64 ns) and values (float64 [symbols, times]) of a block."""

    symbols: list[str]
    times: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]


def align(
    segments: Sequence[Segment],
    symbols: Sequence[str] | None,
    time_range: tuple[int, int],
    columns: Sequence[str] | None,
    max_bytes: int,
) -> Aligned:
    """Puts the rows of segments into one block; later ones replace earlier ones.

    Of rows with revisions the highest replaces the other ones.

    Args:
        segments: In the order of the log.
        symbols: Which ones; None stands for all that have rows in the range, by name.
        time_range: First event time, and the one to stop before, ns since 1970-01-01 UTC.
        columns: Which values; None stands for all.
        max_bytes: Of the block.

    Raises:
        InvalidInputError: The block would be larger, or no segment has one of the columns.
        DamagedSegmentError: A file differs from its checksum.
    """
    touched = [s for s in segments if _touches(s, time_range)]
    rows = None if symbols is None else {name: row for row, name in enumerate(symbols)}
    names: dict[str, int] = {} if rows is None else rows
    pieces = [_select(s, names, time_range, grows=rows is None) for s in touched]
    known = list(symbols) if symbols is not None else _sort_symbols(names, pieces)
    parts = [piece.segment.times[piece.used] for piece in pieces]
    times = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
    chosen = _columns(segments, columns)
    size = len(known) * len(times) * 8 * max(len(chosen), 1)
    if size > max_bytes:
        raise InvalidInputError(
            f"expected a block of at most {max_bytes:,} bytes, was {size:,} ({len(known):,} "
            f"symbols x {len(times):,} times x {len(chosen)} columns); name fewer symbols or "
            "columns, a shorter range, or raise history.max_result_bytes"
        )
    for piece in pieces:
        piece.column_of = np.searchsorted(times, piece.segment.times).astype(np.int32)
    shape = len(known), len(times)
    best = _best_revisions(pieces, shape)

    def one(name: str) -> NDArray[np.float64]:
        out = np.full(shape, np.nan)
        for piece in pieces:
            segment = piece.segment
            place = segment.ids, piece.column_of, piece.runs
            if best is None:
                fill(out, segment.column(name), *place)
            else:
                fill_latest(out, segment.column(name), segment.column(REVISION), best, *place)
        return out

    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        values = dict(zip(chosen, pool.map(one, chosen), strict=True))
    return Aligned(known, times, values)


def _touches(segment: Segment, time_range: tuple[int, int]) -> bool:
    header = segment.header
    return header.rows > 0 and header.max_time >= time_range[0] and header.min_time < time_range[1]


def _select(
    segment: Segment, names: dict[str, int], time_range: tuple[int, int], *, grows: bool
) -> _Piece:
    """Finds the wanted rows; `grows` adds symbols to `names` that have some."""
    segment.check_index()
    low, high = np.searchsorted(segment.times, time_range)
    whole = low == 0 and high == len(segment.times)
    if grows:
        wanted = np.arange(len(segment.names))
    else:
        wanted = np.array([k for k, name in enumerate(segment.names) if name in names], np.int64)
    runs = np.empty((len(wanted), 3), np.int64)
    runs[:, 1], runs[:, 2] = segment.starts[wanted], segment.starts[wanted + 1]
    if not whole:
        cut_runs(segment.ids, runs, low, high)
    some = runs[:, 1] < runs[:, 2]
    wanted, runs = wanted[some], runs[some]
    places = [names.setdefault(segment.names[k], len(names)) for k in wanted.tolist()]
    runs[:, 0] = places
    used = np.zeros(len(segment.times), np.bool_)
    if len(wanted) == len(segment.names):
        used[low:high] = True
    else:
        mark_times(segment.ids, runs, used)
    return _Piece(segment, runs, used, np.empty(0, np.int32))


def _sort_symbols(names: dict[str, int], pieces: Sequence[_Piece]) -> list[str]:
    """Returns the symbols by name, and makes the pieces refer to that order."""
    known = sorted(names)
    row_of = np.empty(len(known), np.int64)
    row_of[[names[name] for name in known]] = np.arange(len(known))
    for piece in pieces:
        piece.runs[:, 0] = row_of[piece.runs[:, 0]]
    return known


def _columns(segments: Sequence[Segment], columns: Sequence[str] | None) -> list[str]:
    found = dict.fromkeys(name for s in segments for name in s.column_names if name != LENGTH)
    if columns is None:
        return list(found)
    missing = [name for name in columns if name not in found]
    if missing and found:
        raise InvalidInputError(
            f"expected columns among {', '.join(found)}, was {', '.join(missing)}; correct them"
        )
    return list(columns)


def _best_revisions(pieces: Sequence[_Piece], shape: tuple[int, int]) -> NDArray[np.int32] | None:
    """Returns the highest revision of each cell, or None where all rows have the same."""
    spans = {
        revision
        for piece in pieces
        for revision in (piece.segment.header.min_revision, piece.segment.header.max_revision)
    }
    if len(spans) <= 1:
        return None
    best = np.full(shape, -1, np.int32)
    for piece in pieces:
        segment = piece.segment
        revisions = segment.column(REVISION)
        raise_revisions(best, revisions, segment.ids, piece.column_of, piece.runs)
    return best
