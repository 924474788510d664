"""Late, early, doubled and missing ticks; the clock; corrections.

No late tick vanishes in silence (bytewax #413), and none is made late by another symbol.
"""

from processors.bars.rules import BarRules
from tests.processors.bars.rig import HOUR, MINUTE, SECOND, Feed, last_revisions, tick

# A whole hour, so that bars begin here.
T0 = 1_700_002_800 * SECOND


def feed(*intervals: str, idle_timeout_ns: int = 10 * SECOND, **rules: object) -> Feed:
    rules.setdefault("allowed_lateness_ns", 0)
    return Feed(BarRules.of(intervals or ("1m",), **rules), idle_timeout_ns=idle_timeout_ns)


def t(seconds: float, price: float = 1.0, symbol: str = "A", **more: float) -> bytes:
    return tick(symbol, T0 + int(seconds * SECOND), price, **more)


def started(*intervals: str, **options: object) -> Feed:
    """Returns a feed whose symbol A has a watermark."""
    made = feed(*intervals, **options)
    made(t(0), t(1))
    return made


def test_a_bar_closes_with_the_first_tick_of_a_later_one():
    bars = started()
    assert bars(t(59.9, 5)) == []
    [bar] = bars(t(60))
    assert (bar.start, bar.end, bar.close, bar.trades) == (T0, T0 + MINUTE, 5, 3)


def test_allowed_lateness_keeps_a_bar_open_and_lets_ticks_of_it_in():
    bars = started(allowed_lateness_ns=5 * SECOND)
    assert bars(t(58, 2), t(63), t(59, 9), t(64.9)) == []
    [bar] = bars(t(65))
    assert (bar.high, bar.close, bar.trades) == (9, 9, 4)


def test_open_and_close_are_those_of_event_time_not_of_arrival():
    bars = started(allowed_lateness_ns=5 * SECOND)
    bars(t(63, 50), t(61, 40), t(63, 55), t(62, 45))
    [_, bar] = bars(t(125))
    assert (bar.open, bar.high, bar.low, bar.close) == (40, 55, 40, 55)


def test_a_late_tick_goes_to_the_late_topic_and_changes_nothing():
    bars = started()
    bars(t(60))
    assert bars(t(61), t(59, 99), t(62)) == []
    [late] = bars.last.late
    assert (late.message, late.rows) == (1, (0,))
    assert late.reason.startswith("late: ")
    [bar] = bars(t(120))
    assert (bar.high, bar.trades) == (1, 3)


def test_late_ticks_of_one_message_are_named_by_their_rows():
    bars = started()
    both = b"[" + t(1, 5) + b"," + t(70) + b"," + t(2, 5) + b"]"
    bars(t(61), both)
    [late] = bars.last.late
    assert (late.message, late.rows) == (1, (0, 2))


def test_duplicates_are_dropped_and_counted():
    bars = started()
    bars(t(10, sequence=7), t(10, sequence=7), t(10, sequence=8))
    assert bars.last.duplicates == 1
    [bar] = bars(t(60))
    assert bar.trades == 4


def test_one_tick_from_the_far_future_closes_nothing():
    bars = started()
    assert bars(t(10 * 86_400, 99), t(30)) == []
    assert bars.last.late == []
    [bar] = bars(t(60))
    assert (bar.high, bar.trades) == (1, 3)


def test_ticks_from_the_far_future_again_and_again_leave_the_bars_right():
    bars = started("1s", "1m")
    found = []
    for i in range(2, 200):
        found += bars(t(i))
        found += bars(t(8 * 3600 + i, 99))
    minutes = [bar for bar in found if bar.interval == "1m"]
    assert [(bar.end, bar.trades, bar.high) for bar in minutes] == [
        (T0 + MINUTE, 60, 1),
        (T0 + 2 * MINUTE, 60, 1),
        (T0 + 3 * MINUTE, 60, 1),
    ]
    assert bars.last.late == []


def test_given_up_ticks_of_the_far_future_are_counted():
    bars = started("1s")
    dropped = 0
    for i in range(20):
        bars(t(8 * 3600 + i, 99), t(2 + i))
        dropped += bars.last.dropped.get("unconfirmed_future", 0)
    room = bars.task._rules.bars_per_interval
    assert 20 - room <= dropped < 20


def test_a_jump_that_the_next_tick_confirms_closes_the_bars_before_it():
    bars = started()
    assert bars(t(7200)) == []
    [bar] = bars(t(7201))
    assert (bar.end, bar.trades) == (T0 + MINUTE, 2)


def test_a_late_tick_corrects_a_closed_bar_by_setting():
    bars = started(late_ticks="correct")
    [first] = bars(t(60))
    [second] = bars(t(30, 9))
    assert bars.last.late == []
    assert (first.revision, first.high, first.trades) == (0, 1, 2)
    assert (second.revision, second.high, second.trades) == (1, 9, 3)
    assert second.close == 9
    [third] = bars(t(20, 4))
    assert (third.revision, third.close, third.trades) == (2, 9, 4)


def test_a_correction_may_make_a_bar_where_there_was_none():
    bars = started(late_ticks="correct")
    bars(t(60), t(180))
    [bar] = bars(t(130, 7))
    assert (bar.start, bar.end, bar.revision) == (T0 + 2 * MINUTE, T0 + 3 * MINUTE, 0)


def test_a_bar_that_is_kept_no_more_is_not_corrected():
    bars = started(late_ticks="correct", kept_bars=2)
    for minute in range(1, 12):
        bars(t(60 * minute))
    assert bars(t(3, 9)) == []
    [late] = bars.last.late
    assert late.reason.startswith("late: a bar of it is kept no more")
    [bar] = bars(t(60 * 10 - 1, 9))
    assert (bar.end, bar.revision) == (T0 + 10 * MINUTE, 1)


def test_late_ticks_still_count_in_longer_bars_that_are_open():
    bars = started("1m", "1h", late_ticks="correct")
    bars(t(60))
    assert [bar.interval for bar in bars(t(30, 9))] == ["1m"]
    found = bars(t(3600 - 60), t(3600), t(3601))
    [hour] = [bar for bar in found if bar.interval == "1h"]
    assert (hour.high, hour.trades, hour.revision) == (9, 5, 0)


def test_a_symbol_that_is_ahead_makes_no_other_one_late():
    bars = started()
    bars(t(0, symbol="B"), t(100, symbol="B"), t(200, symbol="B"))
    assert bars(t(2)) == []
    assert bars.last.late == []


class TestSilentSymbols:
    """Their bars do not stay open for ever (quixstreams #790, bytewax #138)."""

    now = T0 + 100 * HOUR

    def test_the_clock_closes_them_after_the_idle_timeout(self):
        bars = started()
        assert bars.at(self.now) == []
        assert bars.at(self.now + 9 * SECOND) == []
        [bar] = bars.at(self.now + 10 * SECOND)
        assert (bar.end, bar.trades, bar.revision) == (T0 + MINUTE, 2, 0)
        assert bars.at(self.now + 20 * SECOND) == []

    def test_a_tick_starts_the_time_anew(self):
        bars = started()
        bars.at(self.now)
        bars(t(2))
        assert bars.at(self.now + 10 * SECOND) == []
        assert len(bars.at(self.now + 20 * SECOND)) == 1

    def test_a_bar_that_has_not_ended_by_the_clock_stays_open(self):
        bars = started("1m", "1h", allowed_lateness_ns=SECOND)
        bars.at(T0 + 40 * SECOND)
        assert bars.at(T0 + 60 * SECOND) == []
        assert [bar.interval for bar in bars.at(T0 + 61 * SECOND)] == ["1m"]
        assert [bar.interval for bar in bars.at(T0 + HOUR + SECOND)] == ["1h"]

    def test_a_later_tick_in_time_gives_the_next_revision(self):
        bars = started()
        bars.at(self.now)
        [first] = bars.at(self.now + 10 * SECOND)
        assert bars(t(50, 8)) == []
        [second] = bars(t(60))
        assert (second.revision, second.high, second.trades) == (first.revision + 1, 8, 3)
        assert list(last_revisions([first, second]).values()) == [second]

    def test_only_they_are_closed(self):
        bars = started()
        bars.at(self.now)
        bars(t(0, symbol="B"), t(1, symbol="B"))
        assert [bar.symbol for bar in bars.at(self.now + 10 * SECOND)] == ["A"]

    def test_many_are_closed_a_few_chunks_at_a_time(self):
        bars = feed("1s", "1m", "5m", "15m", "1h", "1d")
        count = 40 * bars.task.chunk_symbols
        bars(*(t(0, symbol=f"S{i}") for i in range(count)))
        assert bars.at(self.now) == []
        found, looks = set(), 0
        while len(found) < count:
            closed = {bar.symbol for bar in bars.at(self.now + 10 * SECOND + looks)}
            assert closed
            assert not closed & found
            stored = bars.task.due_chunks(0.0, 0)
            assert len(stored) <= 16
            bars.task.commit()
            found |= closed
            looks += 1
        assert looks == 3

    def test_what_the_clock_closed_is_open_again_after_a_rollback(self):
        bars = started()
        bars.task.commit()
        bars.at(self.now)
        before = bars.at(self.now + 10 * SECOND)
        bars.task.rollback()
        assert bars.task.due_chunks(0.0, 0) == []
        assert bars.at(self.now + 20 * SECOND) == before
