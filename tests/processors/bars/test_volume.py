"""Volume and amount, from sizes or from totals of the session."""

import pytest

from processors.bars.rules import BarRules
from tests.processors.bars.rig import DAY, SECOND, Feed, tick

# 2024-03-04 09:30 in Shanghai.
OPEN = 1_709_515_800 * SECOND


def snapshot(seconds: float, volume: float, price: float = 10.0, **more: float) -> bytes:
    time = OPEN + int(seconds * SECOND)
    return tick("600000.SH", time, price, **({"size": 0.0, "volume": volume} | more))


def closed(*messages: bytes, interval: str = "1m", **rules: object) -> list[tuple[float, float]]:
    """Returns volume and amount of every bar."""
    feed = Feed(BarRules.of([interval], **rules))
    end = [tick("600000.SH", OPEN + 800 * DAY + i, 1) for i in range(2)]
    return [(bar.volume, bar.amount) for bar in feed(*messages, *end)]


def test_sizes_add_up():
    ticks = [tick("600000.SH", OPEN + i * SECOND, 10.0 + i, size=i) for i in range(4)]
    assert closed(*ticks) == [(6, 11 + 24 + 39)]


def test_without_sizes_the_increments_of_the_total_count():
    ticks = [snapshot(-300, 100), snapshot(1, 150), snapshot(30, 150), snapshot(61, 450, 11)]
    assert closed(*ticks) == [(150, 1500), (300, 3300)]


def test_increments_of_the_total_amount_are_taken_where_there_are_any():
    ticks = [snapshot(0, 100, amount=990.0), snapshot(61, 150, amount=1_500.5)]
    assert closed(*ticks) == [(100, 990), (50, pytest.approx(510.5))]


def test_a_size_goes_before_the_total():
    ticks = [snapshot(0, 100), snapshot(1, 120, size=5), snapshot(2, 121)]
    assert closed(*ticks) == [(106, 1060)]


def test_the_total_starts_anew_with_a_session():
    ticks = [snapshot(0, 100), snapshot(86_400, 250), snapshot(86_460, 300)]
    assert [volume for volume, _ in closed(*ticks)] == [100, 250, 50]


def test_a_total_that_goes_back_starts_anew():
    assert closed(snapshot(0, 100), snapshot(1, 30)) == [(130, 1300)]


def test_of_a_total_met_in_mid_session_only_the_bar_of_the_session_knows_its_part():
    ticks = [snapshot(600, 1000), snapshot(660, 1200)]
    assert [volume for volume, _ in closed(*ticks)] == [0, 200]
    assert [volume for volume, _ in closed(*ticks, interval="1d")] == [1200]


def test_an_older_total_that_comes_after_a_newer_one_adds_nothing():
    ticks = [snapshot(0, 100), snapshot(10, 300), snapshot(9, 250), snapshot(11, 310)]
    assert closed(*ticks, allowed_lateness_ns=5 * SECOND) == [(310, 3100)]


def test_totals_outside_sessions_add_nothing():
    ticks = [snapshot(0, 100), snapshot(7 * 3600, 500), snapshot(86_400, 40)]
    assert [volume for volume, _ in closed(*ticks)] == [100, 0, 40]
