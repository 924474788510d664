"""Volume and amount, from sizes or from totals of the session."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.bars.rules import BarRules
from tests.processors.bars.rig import DAY, HOUR, SECOND, Feed, tick

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


class TestFromTheFarFuture:
    """One tick with a wrong time leaves the volumes of its symbol as they are without it."""

    honest = (snapshot(0, 100), snapshot(1, 150), snapshot(2, 180), snapshot(30, 200))
    later = (snapshot(63, 500, 11), snapshot(90, 700, 11), snapshot(130, 1000))

    @pytest.mark.parametrize("ahead", [400, HOUR // SECOND, 24 * 3600, 30 * 86_400])
    @pytest.mark.parametrize("volume", [0, 190, 201, 10**6])
    @pytest.mark.parametrize("times", [1, 2])
    def test_honest_totals_go_on_counting(self, ahead, volume, times):
        odd = [snapshot(30 + ahead, volume)] * times
        expected = closed(*self.honest, *self.later)
        assert closed(*self.honest, *odd, *self.later)[:3] == expected

    @pytest.mark.parametrize("volume", [0, 190, 201, 10**6])
    def test_a_bar_that_holds_it_has_no_volume_twice(self, volume):
        odd = snapshot(1000, volume, amount=volume * 12.5)
        expected = closed(*self.honest, *self.later, interval="1d")
        assert closed(*self.honest, odd, *self.later, interval="1d") == expected

    def test_the_bar_that_the_clock_closed_with_it_is_revised(self):
        feed = Feed(BarRules.of(["1d"]))
        feed(*self.honest, snapshot(1000, 10**6))
        feed.at(OPEN + 20 * HOUR)
        [first] = feed.at(OPEN + 20 * HOUR + 10 * SECOND)
        assert first.volume == 10**6
        feed(*self.later)
        feed.at(OPEN + 21 * HOUR)
        [second] = feed.at(OPEN + 21 * HOUR + 10 * SECOND)
        assert (second.revision, second.volume) == (1, 1000)

    def test_sizes_are_not_taken_back(self):
        odd = snapshot(1000, 300, size=7)
        found = closed(*self.honest, odd, *self.later, interval="1d")
        assert [volume for volume, _ in found] == [1007]

    def test_the_first_tick_of_a_symbol_may_be_it(self):
        odd = snapshot(9000, 10**6)
        assert [v for v, _ in closed(odd, *self.honest, *self.later)[:3]] == [200, 500, 300]

    def test_an_increase_that_the_next_tick_confirms_stays_where_it_was_made(self):
        # After the lunch break, and of a symbol that trades once an hour.
        ticks = [snapshot(0, 100), snapshot(1, 150), snapshot(12_600, 250), snapshot(12_660, 300)]
        assert [volume for volume, _ in closed(*ticks)] == [150, 100, 50]
        hourly = [snapshot(2400 * i, 100 * i) for i in range(1, 4)]
        assert [volume for volume, _ in closed(*hourly)] == [0, 100, 100]

    @settings(max_examples=60)
    @given(st.data())
    def test_wherever_it_comes_the_day_has_the_volume_of_its_last_total(self, data):
        seconds = [float(i) for i in range(0, 240, 7)]
        steps = data.draw(st.lists(st.integers(0, 50), min_size=35, max_size=35))
        totals = [100 + sum(steps[: i + 1]) for i in range(35)]
        messages = []
        for i, (second, total) in enumerate(zip(seconds, totals, strict=True)):
            messages.append(snapshot(second, total))
            # A symbol without a watermark could take two odd ticks for an honest pair.
            if i > 1 and data.draw(st.booleans()):
                ahead = data.draw(st.sampled_from([400, 3000, 80_000]))
                messages.append(snapshot(second + ahead, data.draw(st.integers(0, 2000))))
        end = [snapshot(241, totals[-1]), snapshot(242, totals[-1])]
        assert closed(*messages, *end, interval="1d")[0][0] == totals[-1]
        honest = [snapshot(*pair) for pair in zip(seconds, totals, strict=True)]
        assert closed(*messages, *end)[:4] == closed(*honest, *end)[:4]
