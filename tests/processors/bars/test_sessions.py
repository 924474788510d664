"""Bars keep to the sessions of their symbol's market, which are dated."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from processors.bars import calendars as module
from processors.bars.calendars import ALWAYS_OPEN, MARKETS, Market, segments_of
from processors.bars.rules import BarRules
from tests.processors.bars.rig import DAY, HOUR, SECOND, Bar, Feed, calendars, tick

SHANGHAI, NEW_YORK, CHICAGO = map(
    ZoneInfo, ("Asia/Shanghai", "America/New_York", "America/Chicago")
)


def at(text: str, zone: ZoneInfo = SHANGHAI, ns: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND + ns


def bars(symbol: str, times: list[int], *intervals: str, **rules: object) -> list[Bar]:
    """Returns all bars of ticks whose prices are 1, 2, 3…"""
    feed = Feed(BarRules.of(intervals, **rules))
    ticks = [tick(symbol, time, i + 1) for i, time in enumerate(times)]
    # Two ticks two years later close everything before them.
    end = [tick(symbol, max(times) + 730 * DAY + i, 1) for i in range(2)]
    return feed(*ticks, *end)


def spans(found: list[Bar], zone: ZoneInfo = SHANGHAI) -> list[tuple[str, str, int]]:
    """Returns local start and end, and the number of ticks."""

    def local(time: int) -> str:
        return datetime.fromtimestamp(time / SECOND, zone).strftime("%d %H:%M")

    return [(local(bar.start), local(bar.end), bar.trades) for bar in found]


def test_the_call_auction_belongs_to_the_first_bar_of_an_ashare_session():
    times = [at(f"2024-03-04 {t}") for t in ("09:15:00", "09:25:01", "09:30:00", "09:31:00")]
    [first, second] = bars("600000.SH", times, "1m")
    assert spans([first, second]) == [("04 09:30", "04 09:31", 3), ("04 09:31", "04 09:32", 1)]
    assert (first.open, first.close) == (1, 3)


def test_ticks_at_the_lunch_break_and_at_the_close_belong_to_the_bars_that_end_there():
    times = [
        at(f"2024-03-04 {t}")
        for t in ("11:29:00", "11:30:00", "13:00:00", "14:57:00", "15:00:00", "15:00:03")
    ]
    assert spans(bars("000001.SZ", times, "1m")) == [
        ("04 11:29", "04 11:30", 2),
        ("04 13:00", "04 13:01", 1),
        ("04 14:57", "04 14:58", 1),
        ("04 14:59", "04 15:00", 2),
    ]


def test_an_hour_neither_spans_the_lunch_break_nor_the_night():
    hours = ("09:30:00", "10:29:59", "10:30:00", "11:29:59", "13:00:00", "14:00:00", "14:59:59")
    times = [at(f"2024-03-04 {t}") for t in hours] + [at("2024-03-05 09:30:00")]
    assert spans(bars("600000.SH", times, "1h")) == [
        ("04 09:30", "04 10:30", 2),
        ("04 10:30", "04 11:30", 2),
        ("04 13:00", "04 14:00", 1),
        ("04 14:00", "04 15:00", 2),
        ("05 09:30", "05 10:30", 1),
    ]


def test_a_day_is_a_session_and_ends_at_its_close():
    times = [
        at("2024-03-04 09:25:00"),
        at("2024-03-04 13:00:00"),
        at("2024-03-04 15:00:00"),
        at("2024-03-05 10:00:00"),
    ]
    assert spans(bars("600000.SH", times, "1d")) == [
        ("04 09:30", "04 15:00", 3),
        ("05 09:30", "05 15:00", 1),
    ]


def ashare_day(last: str, step_s: int = 3) -> list[bytes]:
    """Returns the snapshots of one A-share session up to `last`; the n-th one has price n."""
    halves = ("09:15:00", "11:30:03"), ("13:00:00", last)
    times = [
        time
        for begin, end in halves
        for time in range(at(f"2024-03-04 {begin}"), at(f"2024-03-04 {end}") + 1, step_s * SECOND)
    ]
    return [tick("600000.SH", time, i + 1) for i, time in enumerate(times)]


def test_the_snapshots_of_the_closing_auction_are_in_the_only_revision_of_a_day():
    feed = Feed(BarRules.of(["1m", "1h", "1d"], allowed_lateness_ns=SECOND))
    day = ashare_day("15:01:00")
    found = [bar for message in day for bar in feed(message)]
    assert [bar.interval for bar in found if bar.end == at("2024-03-04 15:00:00")] == []
    closing = feed(tick("600000.SH", at("2024-03-04 15:01:03"), 1))
    assert [(bar.interval, bar.end, bar.close, bar.revision) for bar in closing] == [
        (interval, at("2024-03-04 15:00:00"), len(day), 0) for interval in ("1m", "1h", "1d")
    ]


def test_the_clock_closes_a_day_when_the_minute_after_its_close_is_over():
    feed = Feed(BarRules.of(["1d"], allowed_lateness_ns=SECOND))
    day = ashare_day("15:00:03")
    feed(*day)
    assert feed.at(at("2024-03-04 15:00:04")) == []
    assert feed.at(at("2024-03-04 15:00:59")) == []
    [bar] = feed.at(at("2024-03-04 15:01:02"))
    assert (bar.end, bar.close, bar.revision) == (at("2024-03-04 15:00:00"), len(day), 0)


def test_a_day_of_which_only_the_morning_traded_waits_for_the_closing_auction_too():
    feed = Feed(BarRules.of(["1d"], allowed_lateness_ns=SECOND))
    feed(*ashare_day("15:01:00")[:100])
    feed.at(at("2024-03-04 14:00:00"))
    assert feed.at(at("2024-03-04 15:00:30")) == []
    assert len(feed.at(at("2024-03-04 15:01:02"))) == 1


def test_us_sessions_follow_daylight_saving_and_early_closes():
    times = [
        at("2024-03-08 09:30:00", NEW_YORK),
        at("2024-03-11 09:30:00", NEW_YORK),
        at("2024-07-03 12:59:59", NEW_YORK),
        at("2024-07-03 13:00:00", NEW_YORK),
    ]
    assert spans(bars("AAPL.US", times, "1h"), NEW_YORK) == [
        ("08 09:30", "08 10:30", 1),
        ("11 09:30", "11 10:30", 1),
        ("03 12:30", "03 13:00", 2),
    ]
    assert spans(bars("AAPL.US", times, "1d"), NEW_YORK) == [
        ("08 09:30", "08 16:00", 1),
        ("11 09:30", "11 16:00", 1),
        ("03 09:30", "03 13:00", 2),
    ]


def test_a_futures_session_begins_on_the_evening_before():
    times = [at("2024-03-04 18:00:00", CHICAGO), at("2024-03-05 09:00:00", CHICAGO)]
    [bar] = bars("ESM4.CME", times, "1d")
    assert spans([bar], CHICAGO) == [("04 17:00", "05 17:00", 2)]


def test_around_the_clock_a_day_is_one_of_utc():
    midnight = at("2024-03-04 00:00:00", ZoneInfo("UTC"))
    times = [midnight, midnight + DAY - 1, midnight + DAY]
    for symbol in ("BTC-USDT.BINANCE", "AAPL"):
        found = bars(symbol, times, "1d")
        assert [(b.start, b.end, b.trades) for b in found] == [
            (midnight, midnight + DAY, 2),
            (midnight + DAY, midnight + 2 * DAY, 1),
        ]


def test_a_market_can_be_given_to_symbols_without_suffix():
    times = [at("2024-03-08 09:35:00", NEW_YORK)]
    assert spans(bars("AAPL", times, "1h", default_market="us_equity"), NEW_YORK) == [
        ("08 09:30", "08 10:30", 1)
    ]


OUTSIDE = [at("2024-03-08 08:10:00", NEW_YORK), at("2024-03-08 17:20:00", NEW_YORK)]


def test_outside_sessions_bars_are_aligned_to_utc():
    assert spans(bars("AAPL.US", OUTSIDE, "1h"), NEW_YORK) == [
        ("08 08:00", "08 09:00", 1),
        ("08 17:00", "08 18:00", 1),
    ]


def test_outside_sessions_ticks_are_dropped_and_counted_by_setting():
    feed = Feed(BarRules.of(["1h"], outside_session="drop"))
    assert feed(*(tick("AAPL.US", time, 1) for time in OUTSIDE)) == []
    assert feed.last.dropped == {"outside_session": 2}
    holiday = at("2024-03-09 10:00:00", NEW_YORK)
    feed(tick("AAPL.US", holiday, 1), tick("BTC.BINANCE", holiday, 1))
    assert feed.last.dropped == {"outside_session": 1}


def test_what_no_calendar_covers_gets_bars_by_utc_even_where_outside_is_dropped():
    early, late = at("1980-01-02 10:00:00"), at("2200-01-02 10:00:00")
    found = bars("600000.SH", [early, late], "1h", outside_session="drop")
    assert [(b.start % HOUR, b.trades) for b in found] == [(0, 1), (0, 1)]


def test_own_bars_share_no_end_with_those_of_sessions():
    rng = np.random.default_rng(5)
    start = at("2024-03-01 00:00:00")
    for symbol in ("600000.SH", "AAPL.US"):
        times = np.sort(start + rng.integers(0, 30 * DAY, 4000)).tolist()
        found = bars(symbol, times, "5m", "1h", "1d")
        ends = [(bar.interval, bar.end) for bar in found]
        assert len(ends) == len(set(ends))
        assert all(bar.revision == 0 for bar in found)


def test_the_next_session_takes_a_tick_at_a_moment_when_one_closes_and_the_next_opens():
    hour = np.array([HOUR, 2 * HOUR])
    none = np.zeros(2, np.int64)
    segments = segments_of(hour, none, none, hour + HOUR, Market("any"))
    assert segments[:, [0, 3]].tolist() == [[HOUR, 2 * HOUR], [2 * HOUR, 3 * HOUR]]


def test_every_market_with_sessions_has_them_in_order():
    loaded = calendars()
    for name, (low, high) in zip(MARKETS, loaded.bounds.tolist(), strict=True):
        part = loaded.segments[low:high]
        assert high - low > 8000, name
        assert (np.diff(part[:, 0]) > 0).all()
        assert (part[1:, 0] >= part[:-1, 2]).all()
    assert loaded.market("X.NOWHERE", "crypto") == ALWAYS_OPEN


def test_a_calendar_that_cannot_be_loaded_says_so(monkeypatch):
    monkeypatch.setattr(module, "MARKETS", {"moon": Market("XMOO")})
    with pytest.raises(module.CalendarError, match="expected the calendar XMOO of market moon"):
        module.Calendars.load()
