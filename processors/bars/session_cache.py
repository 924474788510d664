"""Sessions of a calendar on disk: computing them takes a second and needs pandas.

A file holds for a week, since the library adds sessions to the end of a calendar as time goes on.
"""

import contextlib
import datetime
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from processors.disk_cache import write_by_rename
from schemas.cache_directory import cache_directory

Longs = NDArray[np.int64]

# Opens, starts and ends of the break, closes.
COLUMNS = 4


def cached_sessions(
    calendar: str, compute: Callable[[], Longs], cache_dir: Path | None = None
) -> Longs:
    """Returns the sessions of a calendar, from disk where they are.

    Args:
        calendar: Its name.
        compute: Gives the sessions, int64 [n, 4] in ascending order.
        cache_dir: Where files are; ``sessions`` in `cache_directory` if None. One that cannot be
            written is done without.
    """
    directory = cache_dir or cache_directory() / "sessions"
    path = directory / f"{calendar}-{_edition()}.npy"
    found = _read(path)
    if found is None:
        found = compute()
        with contextlib.suppress(OSError):
            directory.mkdir(parents=True, exist_ok=True)
            write_by_rename(path, lambda file: np.save(file, found))
            _remove_others(path, calendar)
    return found


def _edition() -> str:
    try:
        library = version("exchange-calendars")
    except PackageNotFoundError:
        library = "none"
    year, week, _ = datetime.datetime.now(tz=datetime.UTC).isocalendar()
    return f"{library}-{year}w{week:02}"


def _read(path: Path) -> Longs | None:
    """Returns what a file holds; None where it is missing or damaged."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if found.dtype != np.int64 or found.ndim != 2 or found.shape[1] != COLUMNS or not len(found):
        return None
    opens, closes = found[:, 0], found[:, -1]
    ordered = bool((opens < closes).all() and (opens[1:] >= closes[:-1]).all())
    return found if ordered else None


def _remove_others(path: Path, calendar: str) -> None:
    for other in path.parent.glob(f"{calendar}-*.npy"):
        if other != path:
            other.unlink(missing_ok=True)
