"""When daily bars of a market begin and end."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mystocks.backfill.times import local_to_utc, zone_of
from schemas.errors import InvalidInputError

_DAY_NS = 86_400 * 10**9
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class Session:
    """The regular session of a market, by its own clock.

    Attributes:
        zone: Name of the time zone.
        open_ns: Nanoseconds after midnight.
        close_ns: Likewise; a whole day ends at the next midnight.
    """

    zone: str
    open_ns: int
    close_ns: int

    def of_dates(self, dates: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns when the sessions of some days begin and end, int64 ns UTC.

        Args:
            dates: Midnights of the market's own clock, int64 ns.
        """
        zone = zone_of(self.zone)
        return local_to_utc(dates + self.open_ns, zone), local_to_utc(dates + self.close_ns, zone)


# What trades around the clock has days of UTC.
ALL_DAY = Session("UTC", 0, _DAY_NS)
SESSIONS: Mapping[str, Session] = {
    "cn_ashare": Session("Asia/Shanghai", 570 * _MINUTE_NS, 900 * _MINUTE_NS),
    "us_equity": Session("America/New_York", 570 * _MINUTE_NS, 960 * _MINUTE_NS),
    "crypto": ALL_DAY,
}
_SHORT = {"cn": "cn_ashare", "us": "us_equity"}


def market_name(text: str) -> str:
    """Returns the name of a market, of which `cn` and `us` are short forms.

    Raises:
        InvalidInputError: It is not known here.
    """
    name = _SHORT.get(text.lower(), text.lower())
    if name not in SESSIONS:
        raise InvalidInputError(
            f"expected cn, us or crypto, was {text!r} (--market); choose one of them"
        )
    return name
