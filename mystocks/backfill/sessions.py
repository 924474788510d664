"""When daily bars of a market begin and end: as those that the role `bars` makes."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mystocks.backfill.times import utc_to_local, zone_of
from processors.bars.calendars import MARKETS, sessions_of
from schemas.errors import InvalidInputError

Longs = NDArray[np.int64]

_DAY_NS = 86_400 * 10**9
# What trades around the clock has days of UTC.
_AROUND_THE_CLOCK = "crypto"
_SHORT = {"cn": "cn_ashare", "us": "us_equity"}


@dataclass(frozen=True, eq=False)
class Days:
    """The days of a market: its sessions, and days of UTC where its calendar knows none.

    Attributes:
        zone: Name of the market's time zone.
        opens: Of the sessions in ascending order, int64 [n], ns UTC.
        closes: Likewise.
        dates: Midnight of the day on which each closes, by the market's own clock, int64 [n] ns.
    """

    zone: str
    opens: Longs
    closes: Longs
    dates: Longs

    def of_dates(self, dates: Longs) -> tuple[Longs, Longs]:
        """Returns when days begin and end, int64 ns UTC.

        Args:
            dates: Midnights of the market's own clock, int64 ns.
        """
        if not len(self.dates):
            return dates, dates + _DAY_NS
        place = np.minimum(np.searchsorted(self.dates, dates), len(self.dates) - 1)
        found = self.dates[place] == dates
        start = np.where(found, self.opens[place], dates)
        return start, np.where(found, self.closes[place], dates + _DAY_NS)

    def of_moments(self, moments: Longs) -> tuple[Longs, Longs]:
        """Returns when the days begin and end to which moments belong, int64 ns UTC.

        Args:
            moments: In a session, or at any time of the date on which it closes; int64 ns UTC.
        """
        dates = utc_to_local(moments, zone_of(self.zone)) // _DAY_NS * _DAY_NS
        if len(self.opens):
            place = np.searchsorted(self.opens, moments, "right") - 1
            inside = (place >= 0) & (moments < self.closes[place])
            dates = np.where(inside, self.dates[place], dates)
        return self.of_dates(dates)


def zone_name(market: str | None) -> str:
    """Returns the name of a market's time zone; UTC where it has no sessions."""
    found = MARKETS.get(market or "")
    return "UTC" if found is None else found.zone


@cache
def days_of(market: str) -> Days:
    """Returns the days of a market; those of UTC where it has no sessions."""
    if market not in MARKETS:
        none = np.empty(0, np.int64)
        return Days(zone_name(market), none, none, none)
    zone, sessions = zone_name(market), sessions_of(market)
    opens, closes = sessions[:, 0], sessions[:, -1]
    return Days(zone, opens, closes, utc_to_local(closes, zone_of(zone)) // _DAY_NS * _DAY_NS)


def market_name(text: str) -> str:
    """Returns the name of a market, of which `cn` and `us` are short forms.

    Raises:
        InvalidInputError: It is not known here.
    """
    name = _SHORT.get(text.lower(), text.lower())
    if name not in (*MARKETS, _AROUND_THE_CLOCK):
        raise InvalidInputError(
            f"expected cn, us, us_futures or crypto, was {text!r} (--market); choose one of them"
        )
    return name
