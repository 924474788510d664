"""Which ticks got no row, for as long as a restart may have to number the rows around them again.

A restart replays the log from the oldest stored part of the state on. A part that is newer already
includes some of what is replayed; whether those ticks were taken cannot be found out again from
it, but how the other rows are numbered depends on it. So dropped ticks are noted, and stored
beside the state in numbered parts that are used again once no restart reads them.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]

# A position in a message takes 18 bits: `MAX_ROWS_PER_MESSAGE` is 2^18.
_ROW_BITS = 18
# One part is one record; uncompressed this is 512 KiB.
_PART_KEYS = 65_536
# Zlib's fastest level; differences of dropped ticks are small numbers that repeat.
_LEVEL = 1
_NONE: Keys = np.empty(0, np.int64)


class DroppedTicks:
    """The dropped ticks of one partition, since the offset at which a restart would begin."""

    def __init__(self) -> None:
        self._fresh: list[Keys] = []
        self._fresh_committed = 0
        self._parts: dict[int, int] = {}
        self._storing: dict[int, int] = {}
        self._stored_of_fresh = 0
        self._resume = 0
        self._loaded = _NONE

    def add(self, offsets: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """Notes dropped ticks.

        Args:
            offsets: Offset of each one's message, int64 [n], ascending.
            rows: Its position in the message, int32 [n].
        """
        if len(offsets):
            self._fresh.append(_keys(offsets, rows))

    def contain(self, offsets: NDArray[np.int64], rows: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tells which ticks were dropped according to what was loaded, bool [n]."""
        keys = _keys(offsets, rows)
        places = np.searchsorted(self._loaded, keys)
        found = np.zeros(len(keys), np.bool_)
        inside = places < len(self._loaded)
        found[inside] = self._loaded[places[inside]] == keys[inside]
        return found

    def due(self, *, with_state: bool) -> list[tuple[int, bytes]]:
        """Returns parts to store with the next commit: number and payload.

        Args:
            with_state: Whether state is stored with it, which a restart may find to be newer than
                the rest.
        """
        count = sum(map(len, self._fresh))
        if not count or not (with_state or count >= _PART_KEYS):
            return []
        keys = np.concatenate(self._fresh)
        self._stored_of_fresh = len(self._fresh)
        parts, number = [], 0
        for first in range(0, count, _PART_KEYS):
            while self._parts.get(number, -1) >= self._resume:
                number += 1
            part = keys[first : first + _PART_KEYS]
            self._storing[number] = int(part[-1]) >> _ROW_BITS
            parts.append((number, zlib.compress(np.diff(part, prepend=0).tobytes(), _LEVEL)))
            number += 1
        return parts

    def load(self, number: int, payload: bytes) -> None:
        """Loads a stored part."""
        part = np.cumsum(np.frombuffer(zlib.decompress(payload), np.int64))
        self._parts[number] = int(part[-1]) >> _ROW_BITS
        self._loaded = np.union1d(self._loaded, part)

    def commit(self, resume: int) -> None:
        """What was noted is permanent, what was due is stored.

        Args:
            resume: Offset at which a restart would begin from now on.
        """
        self._parts |= self._storing
        self._storing.clear()
        del self._fresh[: self._stored_of_fresh]
        self._stored_of_fresh = 0
        self._resume = resume
        self._loaded = _NONE
        self._fresh = [keys for keys in self._fresh if int(keys[-1]) >> _ROW_BITS >= resume]
        self._fresh_committed = len(self._fresh)

    def rollback(self) -> None:
        """Forgets what came since the last commit."""
        self._storing.clear()
        self._stored_of_fresh = 0
        del self._fresh[self._fresh_committed :]

    def replayed(self) -> None:
        """What was noted came from a replay: a rollback keeps it."""
        self._fresh_committed = len(self._fresh)


def _keys(offsets: NDArray[np.int64], rows: NDArray[np.int32]) -> Keys:
    return (offsets << _ROW_BITS) | rows.astype(np.int64)
