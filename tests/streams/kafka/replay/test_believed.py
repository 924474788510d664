"""What time a partition has reached does not depend on how its ticks are read."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.replay.believed import BelievedTime

SECOND = 10**9
TICKS = st.lists(
    st.one_of(st.integers(0, 900), st.integers(80_000, 90_000), st.integers(10**6, 10**7)),
    max_size=80,
)


def reached(times: list[int], cuts: list[int]) -> list[int]:
    """Returns the time after each tick, the ticks taken in parts."""
    believed = BelievedTime()
    found: list[np.ndarray] = []
    for part in np.split(np.array(times, np.int64) * SECOND, sorted(cuts)):
        believed.add(part)
        found += believed.decide(final=False)
        if found and len(found[-1]):
            assert believed.newest_ns == found[-1][-1]
    found += believed.decide(final=True)
    return (np.concatenate(found) // SECOND).tolist()


@given(TICKS, st.lists(st.integers(0, 80), max_size=8))
def test_any_split_gives_the_same_times(times, cuts):
    assert reached(times, cuts) == reached(times, [])


@given(TICKS)
def test_time_never_goes_back_and_is_that_of_some_tick(times):
    found = reached(times, [])
    assert len(found) == len(times)
    assert found == sorted(found)
    assert set(found) <= set(times)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_without_jumps_it_is_the_newest_time_so_far(steps):
    times = np.cumsum(steps).tolist()
    assert reached(times, []) == times
