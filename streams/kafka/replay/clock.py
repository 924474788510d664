"""The clock of a replay: which event time it is."""

import time
from collections.abc import Callable

_NS = 1_000_000_000
# Later than every event time.
END_OF_TIME_NS = 2**63 - 1


class EventClock:
    """Event time that runs `speed` times as fast as the wall clock, and stands while paused.

    Args:
        speed: Event time per wall-clock time; None is not paced: every event time is past.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self, speed: float | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.speed = speed
        self._monotonic = monotonic
        self._anchor: tuple[int, float] | None = None
        self._paused_at: float | None = None

    @property
    def paced(self) -> bool:
        """Whether rows wait for their time."""
        return self.speed is not None

    @property
    def anchored(self) -> bool:
        """Whether the clock runs."""
        return self._anchor is not None

    def anchor(self, event_time_ns: int) -> None:
        """Starts the clock: now is this event time."""
        self._anchor = event_time_ns, self._monotonic()

    def pause(self) -> None:
        """Stops the clock; does nothing if it stands already."""
        if self._paused_at is None:
            self._paused_at = self._monotonic()

    def resume(self) -> None:
        """Lets the clock go on from where it stood."""
        if self._paused_at is not None:
            stood = self._monotonic() - self._paused_at
            self._paused_at = None
            if self._anchor is not None:
                self._anchor = self._anchor[0], self._anchor[1] + stood

    def now_ns(self) -> int:
        """Returns the event time, nanoseconds since 1970 (UTC); before the anchor no time is past.

        Without pacing it is later than every event time.
        """
        if self.speed is None:
            return END_OF_TIME_NS
        if self._anchor is None:
            return -1
        begin, since = self._anchor
        now = self._monotonic() if self._paused_at is None else self._paused_at
        return min(begin + int((now - since) * self.speed * _NS), END_OF_TIME_NS)

    def wait_s(self, event_time_ns: int) -> float:
        """Returns after how many seconds of wall clock an event time is reached."""
        if self.speed is None:
            return 0.0
        return max(0.0, (event_time_ns - self.now_ns()) / _NS / self.speed)
