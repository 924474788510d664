"""What bars are made, and which ticks count."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from processors.order import TickOrder
from schemas.bars import Interval

# Part of the identity: state and bars of another version are not continued.
_VERSION = 3
# Beyond the bars that allowed lateness spans: the current one, one that a session's end cuts
# short, and one that a jump of event time has begun.
_CURRENT_BARS = 3
# Bars of ticks from the far future that nothing confirmed; further ones replace them.
_STRAY_BARS = 2


@dataclass(frozen=True)
class BarRules:
    """The computation of bars; equal rules and ticks give equal bars.

    Attributes:
        intervals: Lengths of the bars.
        allowed_lateness_ns: How far behind its symbol's watermark a tick is still taken; a bar is
            closed when the watermark is so far behind its end.
        max_jump_ns: See `TickOrder`.
        duplicate_window: How many ticks of a symbol are remembered to recognise duplicates.
        late_ticks: Whether a late tick goes to the late topic, or corrects its bars.
        kept_bars: How many closed bars of a symbol and interval can be corrected.
        outside_session: Whether a tick outside its market's sessions gets a bar aligned to UTC, or
            is dropped and counted.
        default_market: Market of symbols whose suffix names none.
        beside: Intervals that are made elsewhere from the same ticks; as many bars are held as
            there, so that late ticks correct the same ones.
    """

    intervals: tuple[Interval, ...]
    allowed_lateness_ns: int = 10**9
    max_jump_ns: int = 300 * 10**9
    duplicate_window: int = 16
    late_ticks: Literal["late_topic", "correct"] = "late_topic"
    kept_bars: int = 16
    outside_session: Literal["own_bar", "drop"] = "own_bar"
    default_market: str = "crypto"
    beside: tuple[Interval, ...] = ()

    @classmethod
    def of(cls, intervals: Sequence[str], **rules: object) -> "BarRules":
        """Returns rules for intervals by name, without doubles and the shortest first."""
        parsed = {Interval.parse(text) for text in intervals}
        ordered = sorted(parsed, key=lambda interval: (interval.is_session, interval.ns))
        return cls(tuple(ordered), **rules)  # type: ignore[arg-type]

    def only(self, interval: str) -> "BarRules":
        """Returns the rules that make the bars of one interval as these rules make them."""
        return replace(self, intervals=(Interval.parse(interval),), beside=self.intervals)

    @property
    def corrects(self) -> bool:
        """Whether late ticks correct bars."""
        return self.late_ticks == "correct"

    @property
    def bars_per_interval(self) -> int:
        """How many bars of a symbol and interval are held at most."""
        shortest_ns = min(interval.ns for interval in (*self.intervals, *self.beside))
        spanned = -(-self.allowed_lateness_ns // shortest_ns)
        kept = self.kept_bars if self.corrects else 0
        return spanned + _CURRENT_BARS + _STRAY_BARS + kept

    def order(self) -> TickOrder:
        """Returns what judges the ticks."""
        return TickOrder(
            self.allowed_lateness_ns,
            self.max_jump_ns,
            self.duplicate_window > 0,
            remembered=self.duplicate_window,
        )

    @property
    def hash(self) -> str:
        """Identity of the computation: state of another one is not continued."""
        parts = (
            _VERSION,
            [interval.name for interval in self.intervals],
            self.allowed_lateness_ns,
            self.max_jump_ns,
            self.duplicate_window,
            self.kept_bars if self.corrects else 0,
            self.outside_session,
            self.default_market,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
