"""The prices of the demo: daily closes of five stocks, 2000 to 2013, from PyPI bokeh-sampledata."""

from datetime import datetime, time
from zoneinfo import ZoneInfo

import pyarrow as pa

from mystocks.sdk.tick import time_to_ns
from schemas.errors import UnavailableError

_CLOSE = time(16, 0, tzinfo=ZoneInfo("America/New_York"))
_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


def daily_closes() -> pa.Table:
    """Returns one tick a stock and day: the close at 16:00 in New York, the day's volume as size.

    Columns ``symbol, event_time_ns (UTC), price (USD, unadjusted), size``, in order of time, then
    symbol; 12,154 rows in the release of 2026.

    Raises:
        UnavailableError: bokeh-sampledata is not installed.
    """
    try:
        from bokeh_sampledata import stocks
    except ModuleNotFoundError:
        raise UnavailableError(
            "expected the package bokeh-sampledata to be installed, was not; "
            "install mystocks-streams[server,local]"
        ) from None
    rows = []
    for symbol in _SYMBOLS:
        stock = getattr(stocks, symbol)
        for date, close, volume in zip(stock["date"], stock["close"], stock["volume"], strict=True):
            closed = datetime.combine(datetime.fromisoformat(date).date(), _CLOSE)
            rows.append((time_to_ns(closed), symbol, float(close), float(volume)))
    rows.sort()
    times, symbols, prices, sizes = zip(*rows, strict=True)
    return pa.table({"symbol": symbols, "event_time_ns": times, "price": prices, "size": sizes})
