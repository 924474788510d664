"""A batch is bounded by bytes, whatever the messages are."""

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.sizing import BatchSizer


@given(st.integers(1, 2**20), st.lists(st.integers(1, 2**21), min_size=1))
def test_messages_of_one_size_never_exceed_the_bound(bound, sizes):
    sizer = BatchSizer(bound)
    for size in sizes:
        sizer.observe(1, size)
        assert sizer.messages == 1 or sizer.messages * size <= bound


def test_small_messages_are_taken_by_the_thousand_again_after_a_large_one():
    sizer = BatchSizer(1_000_000)
    sizer.observe(10, 10_000_000)
    assert sizer.messages == 1
    for _ in range(60):
        sizer.observe(100, 10_000)
    assert sizer.messages > 9_000
