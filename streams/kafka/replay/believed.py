"""Which event time a partition has reached, whatever single ticks claim."""

import numpy as np
from numpy.typing import NDArray

from schemas.ticks.compiled import Flag, Int, compiled

Longs = NDArray[np.int64]

# A tick further ahead of those in front of it is looked at twice; as `max_jump_s` by default.
_MAX_JUMP_NS = 300 * 10**9
# So many ticks behind it say whether it is true: more than one message of a broken feed has in a
# row on a partition of many symbols, and few enough to be there at once.
_WITNESSES = 16


@compiled
def _believe(times: Longs, newest: Int, final: Flag, believed: Longs) -> Int:
    """Finds the time that is reached after each tick.

    Args:
        times: int64 [n], event times in the order of the log.
        newest: What was reached in front of them; -1 is nothing.
        final: Whether no further ticks follow.
        believed: int64 [n], out.

    Returns:
        For how many of the first ticks it is decided.
    """
    count = len(times)
    # Ticks that were not believed before any other one was; they go with the first that is.
    waiting = 0
    for i in range(count):
        time = times[i]
        if newest < 0 or time - newest > _MAX_JUMP_NS:
            end = min(i + 1 + _WITNESSES, count)
            if end < i + 1 + _WITNESSES and not final:
                return i - waiting
            near = 0
            for j in range(i + 1, end):
                if times[j] >= time - _MAX_JUMP_NS:
                    near += 1
            if 2 * near >= end - i - 1:
                newest = time
        else:
            newest = max(newest, time)
        if newest < 0:
            waiting += 1
        else:
            believed[i - waiting : i + 1] = newest
            waiting = 0
    return count - waiting


class BelievedTime:
    """Follows the ticks of one partition.

    A tick more than five minutes ahead of all in front of it is a session's first one, or comes
    from a broken clock. It is believed unless most of the next 16 ticks are more than five minutes
    behind it; one that nothing follows is believed.

    Attributes:
        newest_ns: Newest event time that is believed of the ticks decided so far, nanoseconds since
            1970 (UTC); -1 before the first.
    """

    def __init__(self) -> None:
        self.newest_ns = -1
        self._undecided: list[Longs] = []

    def add(self, times: Longs) -> None:
        """Takes the ticks that follow.

        Args:
            times: int64 [n], nanoseconds since 1970 (UTC); copied.
        """
        self._undecided.append(times.astype(np.int64, copy=True))

    def decide(self, *, final: bool) -> list[Longs]:
        """Returns, for each `add` that is wholly decided, the time reached after each of its ticks.

        Args:
            final: Whether no further ticks follow.
        """
        if not self._undecided:
            return []
        times = np.concatenate(self._undecided)
        believed = np.empty(len(times), np.int64)
        known = _believe(times, self.newest_ns, final, believed)
        found: list[Longs] = []
        first = 0
        for added in self._undecided:
            if first + len(added) > known:
                break
            found.append(believed[first : first + len(added)])
            first += len(added)
        del self._undecided[: len(found)]
        if first:
            self.newest_ns = int(believed[first - 1])
        return found
