"""Which ticks of a stream were acknowledged, which refused, and which are on their way."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from mystocks.sdk.bridge.tick_buffer import tick_at
from mystocks.sdk.columns import TYPES
from mystocks.sdk.encoding import Columns
from mystocks.sdk.tick import Tick
from mystocks.v1.realtime_pb2 import Acknowledgements

# Refusals are kept for a person to look at.
_MAX_REFUSALS = 10_000


class TickRefused(NamedTuple):
    """A tick that the bridge did not accept; it is not in the log.

    Attributes:
        tick: The tick as it was sent.
        field: The field that is to blame, or empty where the reason names none.
        reason: What was expected, and what was seen.
    """

    tick: Tick
    field: str
    reason: str


class TickLedger:
    """Counts what happened to the ticks of each request.

    Attributes:
        acknowledged: Ticks that are in the log.
        refused: Number of ticks that the bridge refused.
        refusals: The newest of them.
        places: The largest offset acknowledged so far, by partition of the ticks' topic.
    """

    def __init__(self) -> None:
        self.acknowledged = 0
        self.refused = 0
        self.refusals: deque[TickRefused] = deque(maxlen=_MAX_REFUSALS)
        self.places: dict[int, int] = {}
        self._columns: dict[int, Columns] = {}
        self._left: dict[int, int] = {}

    def add(self, number: int, columns: Columns) -> None:
        """Notes a request that is sent."""
        self._columns[number] = columns
        self._left[number] = len(columns[0] or ())

    def apply(self, news: Acknowledgements) -> None:
        """Takes over what the bridge says."""
        places = self.places
        for number, accepted, partition, offset in zip(
            news.number, news.accepted, news.partition, news.offset, strict=True
        ):
            self.acknowledged += accepted
            places[partition] = max(offset, places.get(partition, -1))
            self._settle(number, accepted)
        for refusal in news.refused:
            columns = self._columns.get(refusal.number)
            if columns is not None and refusal.row < len(columns[0] or ()):
                field = refusal.reason.partition(" ")[0]
                self.refusals.append(
                    TickRefused(
                        tick_at(columns, refusal.row),
                        field if field in TYPES else "",
                        refusal.reason,
                    )
                )
            self.refused += 1
        # Only now, since the ticks of refusals are looked up above.
        for refusal in news.refused:
            self._settle(refusal.number, 1)

    @property
    def is_settled(self) -> bool:
        """Whether every tick of every request was acknowledged or refused."""
        return not self._left

    def unsettled(self) -> list[Columns]:
        """Returns the requests of which some ticks were neither acknowledged nor refused."""
        return list(self._columns.values())

    def _settle(self, number: int, ticks: int) -> None:
        left = self._left.get(number, 0) - ticks
        if left > 0:
            self._left[number] = left
        else:
            self._left.pop(number, None)
            self._columns.pop(number, None)
