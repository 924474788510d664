"""Bars of a range of event time, computed from the log, are those that live made."""

import pytest

from processors.bars.range_task import RangeBarTask
from processors.bars.rules import BarRules
from processors.features.range_task import RowRange
from tests.processors.bars.rig import HOUR, SECOND, Bar, Batch, Feed, bars_in, task_of, tick
from tests.processors.bars.test_sessions import ashare_day, at

CLOSE = at("2024-03-04 15:00:00")
INTERVALS = ("1s", "1m", "1h", "1d")


def recomputed(
    messages: list[bytes], rules: BarRules, interval: str, end_ns: int | None = None, split: int = 1
) -> list[Bar]:
    """Returns the bars of one interval that a replay writes."""
    task = task_of(rules.only(interval), kind=RangeBarTask)
    task.choose(RowRange(0, end_ns))
    found = []
    for first in range(0, len(messages), split):
        found.append(task.select(Batch(messages[first : first + split], first)))
    found.append(task.finish())
    values = [bars.encode(0, len(bars.event_time)) for bars in found if bars is not None]
    return [bar for value in values for bar in bars_in(value, interval)]


def live(messages: list[bytes], rules: BarRules, interval: str, hours: int = 20) -> list[Bar]:
    """Returns what live has, the clock's part some hours after the close."""
    feed = Feed(rules)
    found = feed(*messages)
    feed.at(CLOSE + hours * HOUR)
    found += feed.at(CLOSE + hours * HOUR + 10 * SECOND)
    return [bar for bar in found if bar.interval == interval]


@pytest.mark.parametrize("interval", INTERVALS)
def test_the_last_bars_of_a_session_are_there_though_no_tick_has_closed_them(interval):
    messages, rules = ashare_day("15:00:03"), BarRules.of(INTERVALS)
    expected = live(messages, rules, interval)
    assert expected[-1].end == CLOSE
    for end_ns in (None, CLOSE + 1, CLOSE + 30 * SECOND, CLOSE + HOUR):
        assert recomputed(messages, rules, interval, end_ns, split=500) == expected


def test_a_bar_that_ends_behind_the_range_or_behind_the_newest_tick_is_not():
    messages, rules = ashare_day("14:59:57"), BarRules.of(INTERVALS)
    assert recomputed(messages, rules, "1d", split=500) == []
    assert recomputed(messages, rules, "1d", CLOSE, split=500) == []
    assert len(recomputed(messages, rules, "1d", CLOSE + 1, split=500)) == 1


def test_of_many_symbols_none_is_forgotten():
    start = at("2024-03-04 09:30:00")
    messages = [tick(f"S{i}", start + second, 1) for second in (0, 1) for i in range(2500)]
    messages.append(tick("S0", start + 61 * SECOND, 1))
    found = recomputed(messages, BarRules.of(["1m"]), "1m", split=len(messages))
    assert len({bar.symbol for bar in found}) == len(found) == 2500


@pytest.mark.parametrize("interval", ["1m", "1h"])
def test_corrections_come_as_live_makes_them_whatever_other_intervals_live_has(interval):
    rules = BarRules.of(
        ["1s", "1m", "1h"],
        allowed_lateness_ns=60 * SECOND,
        late_ticks="correct",
        kept_bars=2,
    )
    start = at("2024-03-04 00:00:00")
    messages = [tick("A", start + 60 * SECOND * minute, minute + 1) for minute in range(240)]
    late = [tick("A", start + 60 * SECOND * minute + 7, 1000) for minute in range(60, 240, 9)]
    messages += [*late, tick("A", start + 240 * 60 * SECOND, 1)]
    expected = Feed(rules)(*messages)
    expected = [bar for bar in expected if bar.interval == interval]
    assert {bar.revision for bar in expected} == {0, 1} or interval == "1h"
    found = recomputed(messages, rules, interval, split=50)
    assert found[: len(expected)] == expected
