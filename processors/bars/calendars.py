"""Trading sessions of markets as arrays that the kernel searches.

A market's trading time is a list of *segments*: stretches without a break, each part of a session.
A-share sessions have two, before and after the lunch break, others have one.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from processors.bars.session_cache import cached_sessions
from schemas.errors import MyStocksError
from schemas.symbols import market_of

_MINUTE_NS = 60 * 10**9
# XSHG's holidays are recorded from here on; bars before it are aligned to UTC.
_FIRST_DAY = "1991-01-01"
# A calendar that ends sooner than this is worth a warning: holidays are announced year by year.
_SHORT_HORIZON = datetime.timedelta(days=30)

# Columns of `Calendars.segments`.
ACCEPT_FROM, OPEN, CLOSE, ACCEPT_UNTIL, SESSION_OPEN, SESSION_CLOSE = range(6)

Longs = NDArray[np.int64]

_log = structlog.get_logger(__name__)


class CalendarError(MyStocksError):
    """A trading calendar cannot be used."""


@dataclass(frozen=True)
class Market:
    """How a market's sessions are known.

    Attributes:
        calendar: Name in exchange_calendars.
        zone: Time zone of its dates; a session has the date on which it closes.
        lead_ns: Ticks up to so long before a session's open belong to its first bar: the call
            auction, whose result is the opening price.
        lag_ns: Ticks up to so long after a segment's close belong to its last bar: snapshots of
            the closing auction come seconds after it.
    """

    calendar: str
    zone: str = "UTC"
    lead_ns: int = 0
    lag_ns: int = 0


MARKETS: Mapping[str, Market] = {
    # Call auction from 9:15; the last snapshot of a session is stamped after 15:00:00.
    "cn_ashare": Market("XSHG", "Asia/Shanghai", lead_ns=15 * _MINUTE_NS, lag_ns=_MINUTE_NS),
    "us_equity": Market("XNYS", "America/New_York"),
    "us_futures": Market("CMES", "America/Chicago"),
}
# Trades around the clock: bars are aligned to UTC, and a session is a day of it.
ALWAYS_OPEN = -1


class Calendars:
    """Segments of all markets, one market after the other.

    Attributes:
        segments: int64 [n, 6]: first accepted tick, open, close, last accepted tick, and open and
            close of the session; nanoseconds since 1970 (UTC). Ascending within a market. A tick
            exactly at a close belongs to the bar that ends there, unless the next segment opens at
            the same moment.
        bounds: int64 [markets, 2], first row and row after the last of each market.
    """

    def __init__(self, parts: Sequence[tuple[str, Longs]]) -> None:
        """Joins markets.

        Args:
            parts: Name and segments of each market.
        """
        self._number = {name: i for i, (name, _) in enumerate(parts)}
        ends = np.cumsum([len(segments) for _, segments in parts], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends])[: len(parts)]
        self.bounds: Longs = np.stack([starts, ends], axis=1).reshape(-1, 2)
        self.segments: Longs = np.concatenate(
            [np.empty((0, 6), np.int64), *(segments for _, segments in parts)]
        )

    @classmethod
    def load(cls) -> "Calendars":
        """Returns the sessions of all markets; takes about two seconds where no cache has them.

        Raises:
            CalendarError: The library knows no such calendar.
        """
        return cls([(name, _load(name, market)) for name, market in MARKETS.items()])

    def market(self, symbol: str, default: str) -> int:
        """Returns the number of a symbol's market, `ALWAYS_OPEN` where it has no sessions.

        Args:
            symbol: Its suffix names the market.
            default: Market of symbols without one.
        """
        return self._number.get(market_of(symbol) or default, ALWAYS_OPEN)


def sessions_of(name: str) -> Longs:
    """Returns open, start and end of the break (0: none), and close of every session of a market.

    Args:
        name: In `MARKETS`.

    Returns:
        int64 [n, 4] in ascending order, nanoseconds since 1970 (UTC).

    Raises:
        CalendarError: The library knows no such calendar.
    """
    calendar = MARKETS[name].calendar
    return cached_sessions(calendar, lambda: _sessions(name, calendar))


def _load(name: str, market: Market) -> Longs:
    sessions = sessions_of(name)
    last = datetime.datetime.fromtimestamp(int(sessions[-1, -1]) / 1e9, tz=datetime.UTC)
    if last - datetime.datetime.now(tz=datetime.UTC) < _SHORT_HORIZON:
        _log.warning(
            "calendar ends soon; later bars are aligned to UTC",
            market=name,
            last_session=last.date().isoformat(),
        )
    opens, break_starts, break_ends, closes = sessions.T
    return segments_of(opens, break_starts, break_ends, closes, market)


def _sessions(name: str, calendar: str) -> Longs:
    # Imports pandas, which takes a second; only roles that need sessions pay for it.
    import exchange_calendars
    from exchange_calendars.errors import CalendarError as LibraryError

    try:
        schedule = exchange_calendars.get_calendar(calendar, start=_FIRST_DAY).schedule
    except (LibraryError, ValueError) as error:
        raise CalendarError(
            f"expected the calendar {calendar} of market {name}, was not to be had "
            f"({error}); install exchange-calendars as requirements/ say"
        ) from error
    columns = ("open", "break_start", "break_end", "close")
    return np.stack([_nanoseconds(schedule[column]) for column in columns], axis=1)


def _nanoseconds(column: Any) -> Longs:
    """Returns times as nanoseconds, 0 where there is none."""
    values = column.dt.tz_localize(None).to_numpy("datetime64[ns]")
    found: Longs = np.where(np.isnat(values), 0, values.view(np.int64))
    return found


def segments_of(
    opens: Longs, break_starts: Longs, break_ends: Longs, closes: Longs, market: Market
) -> Longs:
    """Returns the segments of sessions; all times in nanoseconds since 1970 (UTC).

    Args:
        opens: int64 [n], of each session.
        break_starts: int64 [n], 0 where a session has no break.
        break_ends: int64 [n], likewise.
        closes: int64 [n].
        market: How far ticks around a segment belong to it.
    """
    rows = []
    for opened, pause, resumed, closed in zip(
        opens.tolist(), break_starts.tolist(), break_ends.tolist(), closes.tolist(), strict=True
    ):
        lead, lag = opened - market.lead_ns, market.lag_ns
        if pause:
            rows.append((lead, opened, pause, pause + lag, opened, closed))
            rows.append((resumed, resumed, closed, closed + lag, opened, closed))
        else:
            rows.append((lead, opened, closed, closed + lag, opened, closed))
    return np.array(rows, np.int64).reshape(-1, 6)
