"""The same bars however the ticks are split into batches, aborted, stored and restored."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.bars.rules import BarRules
from processors.order import TAKE, WATERMARK
from tests.processors.bars.rig import HOUR, SECOND, Bar, Batch, Feed, bars_of, task_of, tick

T0 = 1_709_515_800 * SECOND
SYMBOLS = ("A", "600000.SH", "AAPL.US")
INTERVALS = ("1s", "1m", "1d")


@st.composite
def ticks(draw, far: bool = True):
    """Messages of ticks that mostly advance, are sometimes late or doubled, and seldom jump."""
    count = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    time, messages = T0 + 600 * SECOND, []
    for i in range(count):
        time += int(rng.choice([0, SECOND // 3, 2 * SECOND, 70 * SECOND]))
        shift = int(rng.choice([0, 0, 0, 0, -SECOND, -3 * SECOND, -90 * SECOND]))
        if far and rng.random() < 0.08:
            shift = int(rng.choice([6 * HOUR, 3000 * HOUR]))
        if far and rng.random() < 0.03:
            time += 18 * HOUR
        extra = {"sequence": int(rng.integers(0, 4))} if rng.random() < 0.3 else {}
        extra |= {"size": 0.0, "volume": 10.0 * i} if rng.random() < 0.3 else {}
        symbol = SYMBOLS[int(rng.integers(0, len(SYMBOLS)))]
        messages.append(tick(symbol, time + shift, float(rng.integers(1, 99)), **extra))
    return messages


RULES = st.builds(
    lambda late, lateness, outside: BarRules.of(
        INTERVALS,
        late_ticks=late,
        allowed_lateness_ns=lateness,
        outside_session=outside,
        kept_bars=3,
    ),
    st.sampled_from(["late_topic", "correct"]),
    st.sampled_from([0, SECOND, 5 * SECOND]),
    st.sampled_from(["own_bar", "drop"]),
)


def outcome(produced) -> tuple[list[Bar], list[int], int, dict]:
    """Returns everything that a run has said, apart from how it was split."""
    bars = bars_of(*(one for _, one in produced))
    late = [start + refusal.message for start, one in produced for refusal in one.late]
    dropped: dict[str, int] = defaultdict(int)
    for _, one in produced:
        for reason, count in one.dropped.items():
            dropped[reason] += count
    # Topics are independent of each other.
    by_topic = sorted(bars, key=lambda bar: INTERVALS.index(bar.interval))
    return by_topic, late, sum(one.duplicates for _, one in produced), dict(dropped)


@settings(max_examples=150)
@given(ticks(), RULES, st.data())
def test_any_split_gives_the_same(messages, rules, data):
    whole = task_of(rules)
    expected = outcome([(0, whole.process(Batch(messages), 0))])
    task, produced, start = task_of(rules), [], 0
    while start < len(messages):
        end = data.draw(st.integers(start + 1, len(messages)))
        produced.append((start, task.process(Batch(messages[start:end], start), 0)))
        start = end
    assert outcome(produced) == expected


@settings(max_examples=150)
@given(ticks(), RULES, st.data())
def test_aborts_and_restarts_change_nothing(messages, rules, data):
    expected = outcome([(0, task_of(rules).process(Batch(messages), 0))])
    task, produced, start = task_of(rules), [], 0
    chunks: dict[int, tuple[bytes, int]] = {}
    resume = 0
    while start < len(messages):
        end = data.draw(st.integers(start + 1, len(messages)))
        one = task.process(Batch(messages[start:end], start), 0)
        if data.draw(st.booleans()):
            task.rollback()
            continue
        produced.append((start, one))
        start = end
        if data.draw(st.booleans()):
            for chunk, payload in task.due_chunks(float("inf"), 1):
                chunks[chunk] = (payload, start)
        resume, _ = task.resume_point(start, 0)
        task.commit()
        if data.draw(st.booleans()):
            task = task_of(rules)
            for chunk, (payload, next_offset) in sorted(chunks.items()):
                task.load_chunk(chunk, payload, next_offset)
            if resume < start:
                task.replay(Batch(messages[resume:start], resume), 0)
    assert outcome(produced) == expected


@settings(max_examples=150)
@given(ticks(far=False), st.sampled_from([0, SECOND, 5 * SECOND]))
def test_closed_bars_hold_the_ticks_that_were_taken(messages, lateness):
    """Against a model that keeps every tick and knows no state but the watermark."""
    rules = BarRules.of(["1s", "1m"], allowed_lateness_ns=lateness)
    feed = Feed(rules)
    found = feed(*messages)
    order, symbols = rules.order(), list(SYMBOLS)
    state = np.zeros((len(symbols), order.state_width), np.int64)
    ticks_of: dict[tuple, list[tuple[int, float]]] = defaultdict(list)
    columns, _ = feed.task._decode(Batch(messages))
    names = feed.task._symbols.names
    for i in range(len(columns)):
        code = np.array([symbols.index(names[columns.code[i]])], np.int32)
        time = columns.event_time[i : i + 1]
        if order.judge(code, time, columns.sequence[i : i + 1], state)[0] == TAKE:
            for interval in rules.intervals:
                # All of it is in session or around the clock, aligned to whole minutes.
                end = int(time[0]) // interval.ns * interval.ns + interval.ns
                key = (names[columns.code[i]], interval.name, end)
                ticks_of[key].append((int(time[0]), float(columns.price[i])))
    expected = {}
    for key, taken in ticks_of.items():
        symbol, _, end = key
        watermark = int(state[symbols.index(symbol), WATERMARK])
        if watermark and watermark - end >= lateness:
            prices = [price for _, price in sorted(taken, key=lambda pair: pair[0])]
            expected[key] = (prices[0], max(prices), min(prices), prices[-1], len(prices))
    assert {
        (bar.symbol, bar.interval, bar.end): (bar.open, bar.high, bar.low, bar.close, bar.trades)
        for bar in found
    } == expected
    assert all(bar.revision == 0 for bar in found)
