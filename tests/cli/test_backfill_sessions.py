"""Daily bars of files begin and end as those that live makes of ticks of the same day."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest

from mystocks.backfill.bars import BarRules as FileRules
from mystocks.backfill.bars import Columns, Rejects, Symbols, read_bars
from mystocks.backfill.layout import recognise
from mystocks.backfill.sessions import days_of, market_name
from processors.bars.calendars import MARKETS
from processors.bars.rules import BarRules
from schemas.bars import Interval
from schemas.errors import InvalidInputError
from tests.processors.bars.rig import DAY, SECOND, Feed, tick
from tests.processors.bars.test_sessions import CHICAGO, NEW_YORK, SHANGHAI, at


def loaded(symbol: str, times: list[object], default_market: str = "crypto") -> list[tuple]:
    """Returns start and end of the daily bars of a file."""
    prices = dict.fromkeys(("open", "high", "low", "close"), [1.0] * len(times))
    table = pa.table({"symbol": [symbol] * len(times), "date": times} | prices)
    columns = Columns(table, recognise(table.column_names), 0, Rejects())
    rules = FileRules(Interval.parse("1d"), "start", "UTC", tushare_units=False)
    bars = read_bars(columns, Symbols(None, None, default_market), rules)
    return list(zip(bars.start_time.tolist(), bars.end_time.tolist(), strict=True))


def live(symbol: str, times: list[int], default_market: str = "crypto") -> list[tuple]:
    """Returns the same of ticks at some times of those days."""
    feed = Feed(BarRules.of(["1d"], default_market=default_market))
    end = [tick(symbol, max(times) + 730 * DAY + i, 1) for i in range(2)]
    found = feed(*(tick(symbol, time, 1) for time in times), *end)
    return [(bar.start, bar.end) for bar in found]


DAYS = ["2023-11-24", "2024-07-03", "2024-12-24", "2024-02-12", "2024-03-11", "2025-01-09"]


@pytest.mark.parametrize(
    ("symbol", "zone", "hour", "default_market"),
    [
        ("AAPL.US", NEW_YORK, 10, "crypto"),
        ("AAPL", NEW_YORK, 10, "us_equity"),
        ("600000.SH", SHANGHAI, 10, "crypto"),
        ("ESM4.CME", CHICAGO, 10, "crypto"),
        ("ESM4.CME", CHICAGO, 2, "crypto"),
    ],
)
def test_a_day_of_a_file_is_the_day_of_live(symbol, zone, hour, default_market):
    days = sorted(DAYS)
    ticks = [at(f"{day} {hour:02d}:00:00", zone) for day in days]
    expected = live(symbol, ticks, default_market)
    assert loaded(symbol, days, default_market) == expected
    moments = pa.array(ticks, pa.timestamp("ns", "UTC"))
    assert loaded(symbol, moments, default_market) == expected


def test_a_half_day_ends_at_one_and_a_future_in_the_afternoon():
    assert loaded("AAPL.US", ["2024-07-03"])[0][1] == at("2024-07-03 13:00:00", NEW_YORK)
    [(start, end)] = loaded("ESM4.CME", ["2024-03-05"])
    assert (start, end) == (at("2024-03-04 17:00:00", CHICAGO), at("2024-03-05 17:00:00", CHICAGO))


def test_a_future_that_begins_on_the_evening_before_belongs_to_the_day_on_which_it_closes():
    evening = pa.array([at("2024-03-04 17:00:00", CHICAGO)], pa.timestamp("ns", "UTC"))
    assert loaded("ESM4.CME", evening) == loaded("ESM4.CME", ["2024-03-05"])


@pytest.mark.parametrize("day", ["1985-06-03", "2024-07-04", "2024-07-06"])
def test_days_without_a_session_are_days_of_utc_as_live_has_them(day):
    ticks = [at(f"{day} 12:00:00", NEW_YORK)]
    assert loaded("AAPL.US", [day]) == live("AAPL.US", ticks)
    assert loaded("AAPL.US", pa.array(ticks, pa.timestamp("ns", "UTC"))) == live("AAPL.US", ticks)


def test_around_the_clock_days_are_those_of_utc():
    midnight = int(datetime.fromisoformat("2024-03-05T00:00+00:00").timestamp()) * SECOND
    for symbol in ("BTC-USDT.BINANCE", "AAPL"):
        assert loaded(symbol, ["2024-03-05"]) == [(midnight, midnight + DAY)]


@pytest.mark.parametrize("market", MARKETS)
def test_every_session_of_a_market_has_a_date_of_its_own(market):
    days = days_of(market)
    assert (np.diff(days.dates) > 0).all()
    start, end = days.of_dates(days.dates)
    assert (start == days.opens).all()
    assert (end == days.closes).all()
    for moments in (days.opens, days.closes - 1):
        assert (days.of_moments(moments)[1] == days.closes).all()


def test_markets_have_short_names():
    assert [market_name(n) for n in ("cn", "US", "us_futures", "crypto")] == [
        "cn_ashare", "us_equity", "us_futures", "crypto",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="expected cn, us, us_futures or crypto, was 'uk'"):
        market_name("uk")
