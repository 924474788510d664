"""What is late and what is a duplicate, against a slow model and one rule at a time."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.order import DUPLICATE, LATE, TAKE, WATERMARK, TickOrder

SECOND = 10**9
MINUTE = 60 * SECOND
START = 1_700_000_000 * SECOND


def judge(order, ticks, lengths=None, state=None):
    """Verdicts of (symbol, time, sequence) triples, in batches of the given lengths."""
    ticks = np.array(ticks, np.int64).reshape(-1, 3)
    state = np.zeros((8, order.state_width), np.int64) if state is None else state
    verdicts, first = [], 0
    for length in lengths if lengths is not None else [len(ticks)]:
        part = ticks[first : first + length]
        columns = (part[:, 0].astype(np.int32), part[:, 1].copy(), part[:, 2].copy())
        verdicts += order.judge(*columns, state).tolist()
        first += length
    return verdicts


def alone(order, times, sequences=None):
    """Verdicts of one symbol's ticks, in seconds after the start."""
    sequences = sequences or [-1] * len(times)
    return judge(
        order, [(0, START + int(t * SECOND), s) for t, s in zip(times, sequences, strict=True)]
    )


class Model:
    """The rules of `processors.order.tick_order` once more, one symbol, one rule a line."""

    def __init__(self, lateness, max_jump, remembered):
        self.lateness, self.max_jump, self.remembered = lateness, max_jump, remembered
        self.watermark = self.jump = None
        self.taken = []

    def judge(self, time, sequence):
        recent = self.taken[-self.remembered :] if self.remembered else []
        if sequence >= 0 and (time, sequence) in recent:
            return DUPLICATE
        if self.watermark is not None and time < self.watermark - self.lateness:
            return LATE
        if sequence >= 0:
            self.taken.append((time, sequence))
        jumps = self.watermark is None or time > self.watermark + self.max_jump
        if jumps and self.jump is not None and time == self.jump:
            return TAKE
        confirms = (
            jumps
            and self.jump is not None
            and time >= self.jump - self.lateness
            and time >= self.jump - self.max_jump
        )
        if confirms:
            self.watermark = self.jump
            jumps = time > self.watermark + self.max_jump
        self.jump = time if jumps else None
        if not jumps:
            self.watermark = max(self.watermark, time)
        return TAKE


@st.composite
def streams(draw):
    """Ticks that mostly advance, with jumps, stragglers, repetitions, and a split."""
    steps = st.one_of(
        st.integers(0, 3), st.integers(-15, 15), st.sampled_from([-1000, -40, 25, 400, 10**6])
    )
    now, ticks = defaultdict(lambda: START), []
    for symbol, step, sequence, again in draw(
        st.lists(
            st.tuples(st.integers(0, 2), steps, st.integers(-1, 3), st.integers(0, 9)), max_size=80
        )
    ):
        if again == 0 and ticks:
            ticks.append(draw(st.sampled_from(ticks)))
            continue
        time = now[symbol] + step
        # Far ticks are mostly single ones.
        if abs(step) < 100 or again > 6:
            now[symbol] = time
        ticks.append((symbol, time, sequence))
    cuts = draw(st.sets(st.integers(0, len(ticks)), max_size=8))
    return ticks, np.diff(sorted({0, len(ticks)} | cuts)).tolist()


@settings(max_examples=400)
@given(
    stream=streams(),
    lateness=st.integers(0, 30),
    max_jump=st.integers(0, 30),
    remembered=st.integers(0, 5),
)
def test_any_split_gives_the_verdicts_of_the_model(stream, lateness, max_jump, remembered):
    ticks, lengths = stream
    order = TickOrder(lateness, max_jump, remembered > 0, remembered=remembered)
    models = defaultdict(lambda: Model(lateness, max_jump, remembered))
    expected = [models[symbol].judge(time, sequence) for symbol, time, sequence in ticks]
    state = np.zeros((8, order.state_width), np.int64)
    assert judge(order, ticks, lengths, state) == expected
    for symbol, model in models.items():
        assert state[symbol, WATERMARK] == (model.watermark or 0)
    whole = np.zeros_like(state)
    judge(order, ticks, None, whole)
    assert whole.tobytes() == state.tobytes()


@settings(max_examples=200)
@given(stream=streams(), place=st.integers(0, 80), lateness=st.integers(0, 30))
def test_one_tick_from_the_far_future_makes_no_other_tick_late(stream, place, lateness):
    honest = [(time, -1) for symbol, time, _ in stream[0] if symbol == 0]
    far = max((time for time, _ in honest), default=START) + 10**6
    place = min(place, len(honest))
    order = TickOrder(lateness, 20, False)
    ticks = [(0, time, -1) for time, _ in [*honest[:place], (far, -1), *honest[place:]]]
    verdicts = judge(order, ticks)
    assert verdicts[place] == TAKE
    newest = 0
    for (_, time, _), verdict in zip(ticks, verdicts, strict=True):
        if time != far:
            assert verdict == TAKE or newest - time > lateness
            newest = max(newest, time)


def test_out_of_order_ticks_are_taken_up_to_the_allowed_lateness():
    order = TickOrder(2 * SECOND, 5 * MINUTE, False)
    assert alone(order, [0, 10, 8, 7.999999999, 11, 9, 8.9]) == [0, 0, 0, LATE, 0, 0, LATE]


def test_with_no_allowed_lateness_every_older_tick_is_late_and_an_equal_one_is_not():
    assert alone(TickOrder(0, 5 * MINUTE, False), [0, 1, 1, 0.5, 1, 2]) == [0, 0, 0, LATE, 0, 0]


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_a_far_tick_sent_twice_does_not_confirm_itself(drop_duplicates):
    order = TickOrder(0, 5 * MINUTE, drop_duplicates)
    assert alone(order, [0, 1, 10**8, 10**8, 2, 3, 2.5]) == [0, 0, 0, 0, 0, 0, LATE]


def test_a_far_first_tick_does_not_make_its_symbol_late():
    assert alone(TickOrder(0, 5 * MINUTE, False), [10**8, 0, 1, 0.5]) == [0, 0, 0, LATE]


def test_the_second_tick_of_a_session_confirms_the_first():
    order = TickOrder(SECOND, 5 * MINUTE, False)
    night = 16 * 3600
    times = [0, 1, night, 1.5, night + 0.5, 2, night - 0.4, night - 0.6]
    assert alone(order, times) == [0, 0, 0, 0, 0, 0, 0, 0]
    times = [0, 1, night, night + 0.5, 2, night - 0.4, night - 0.6]
    assert alone(order, times) == [0, 0, 0, 0, LATE, 0, LATE]


def test_a_symbol_that_ticks_rarely_still_has_a_watermark():
    hours = [3600 * k for k in range(5)]
    # The newest is always unconfirmed, the one before it is not.
    assert alone(TickOrder(0, 5 * MINUTE, False), [*hours, 3600 * 2.5]) == [0] * 5 + [LATE]


def test_duplicates_are_dropped_and_a_restarted_feed_is_not():
    order = TickOrder(10 * SECOND, 5 * MINUTE, True)
    times = [0, 1, 1, 1, 0, 2, 2, 3]
    sequences = [5, 6, 6, 7, 5, 1, 2, 1]
    assert alone(order, times, sequences) == [0, 0, DUPLICATE, 0, DUPLICATE, 0, 0, 0]


def test_a_tick_without_sequence_is_never_a_duplicate():
    assert alone(TickOrder(0, 5 * MINUTE, True), [0, 1, 1, 1]) == [0, 0, 0, 0]


def test_only_so_many_ticks_of_a_symbol_are_remembered():
    order = TickOrder(MINUTE, 5 * MINUTE, True, remembered=3)
    times, sequences = [0, 1, 2, 3], [0, 1, 2, 3]
    assert alone(order, [*times, 1], [*sequences, 1])[-1] == DUPLICATE
    assert alone(order, [*times, 0], [*sequences, 0])[-1] == TAKE


def test_a_late_tick_that_is_remembered_is_a_duplicate():
    order = TickOrder(0, 5 * MINUTE, True)
    assert alone(order, [0, 1, 2, 0, 0.5], [0, 1, 2, 0, 9]) == [0, 0, 0, DUPLICATE, LATE]


def test_watermarks_are_those_right_after_each_tick():
    order = TickOrder(0, 5 * MINUTE, False)
    times = START + np.array([0, 1, 10**6, 2, 1]) * SECOND
    watermarks = np.zeros(5, np.int64)
    state = np.zeros((1, order.state_width), np.int64)
    order.judge(np.zeros(5, np.int32), times, np.full(5, -1), state, watermarks)
    seconds = [0 if w == 0 else (w - START) // SECOND for w in watermarks.tolist()]
    assert seconds == [0, 1, 1, 2, 2]
