"""Turns of readers of the past, so that the event loop has time for everything else."""

from __future__ import annotations

import asyncio

# So many are served at a time: each costs the loop a millisecond or a few, and new calls and live
# rows come between.
_AT_A_TIME = 8
# A turn is for the work of the loop. While a response waits for its client, others have theirs.
_LONGEST_S = 0.005


class Turn:
    """Time to take something of the past and to send it."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._timer = asyncio.get_running_loop().call_later(_LONGEST_S, self.end)
        self._ended = False

    def end(self) -> None:
        """Lets the next reader have its turn."""
        if not self._ended:
            self._ended = True
            self._timer.cancel()
            self._free.release()


class Turns:
    """Gives turns in the order in which they are asked for. Belongs to the event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_A_TIME)

    async def begin(self) -> Turn:
        """Waits for a turn."""
        await self._free.acquire()
        return Turn(self._free)
