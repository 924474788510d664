"""State of a partition: rollback, growth, chunks, and what a restart must replay."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processors.features.state import ChunkLedger, PartitionState

WIDTH, FEATURES = 3, 2


def touch(state: PartitionState, slots: list[int], value: float) -> None:
    index = np.array(slots, np.int32)
    state.ensure(max(slots) + 1)
    state.remember(index)
    state.kernel[index] = value
    state.values[index] = value
    state.price[index] = value
    state.event_time[index] = int(value)
    state.row[index] = int(value)


def content(state: PartitionState, slots: int) -> list:
    arrays = (state.kernel, state.values, state.price, state.event_time, state.row)
    return [array[:slots].tolist() for array in arrays]


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 500), min_size=1, unique=True), st.booleans())),
)
def test_rollback_restores_what_the_last_commit_left(batches):
    state, reference = (PartitionState(WIDTH, FEATURES, capacity=4) for _ in range(2))
    for number, (slots, commit) in enumerate(batches):
        touch(state, slots, number + 1.0)
        touch(state, slots[:1], number + 100.0)
        if commit:
            touch(reference, slots, number + 1.0)
            touch(reference, slots[:1], number + 100.0)
            state.commit()
        else:
            state.rollback()
    state.ensure(501)
    reference.ensure(501)
    assert str(content(state, 501)) == str(content(reference, 501))


def test_a_chunk_brings_back_names_and_rows():
    state = PartitionState(WIDTH, FEATURES)
    names = [f"S{i}" for i in range(10)]
    touch(state, list(range(10)), 7.0)
    payload = state.encode_chunk(0, names)
    restored = PartitionState(WIDTH, FEATURES)
    restored.ensure(10)
    found, arrays = restored.decode_chunk(payload)
    restored.load(np.arange(10, dtype=np.int32), arrays, next_offset=55)
    assert found == names
    assert content(restored, 10) == content(state, 10)
    assert set(restored.known_until[:10].tolist()) == {55}


def test_an_unchanged_chunk_needs_no_replay_and_is_not_stored_again():
    ledger = ChunkLedger(chunk_symbols=4, interval_s=30.0)
    assert ledger.resume_point(100, 90) == (100, 90)
    ledger.touched(np.array([0, 1, 9]), 50, 45, now=0.0)
    assert ledger.resume_point(100, 90) == (50, 45)
    assert ledger.due(29.0, symbols=10) == []
    assert ledger.due(30.0, symbols=10) == [0, 2]
    ledger.storing(0, 10)
    ledger.storing(2, 10)
    ledger.commit()
    assert ledger.due(math.inf, symbols=10) == []
    assert ledger.resume_point(100, 90) == (100, 90)


def test_a_chunk_whose_transaction_was_aborted_is_due_again():
    ledger = ChunkLedger(chunk_symbols=4, interval_s=0.0)
    ledger.touched(np.array([0]), 50, 45, now=0.0)
    ledger.storing(0, 1)
    assert ledger.resume_point(60, 55) == (60, 55)
    ledger.rollback()
    assert ledger.resume_point(60, 55) == (50, 45)
    assert ledger.due(1.0, symbols=1) == [0]


def test_chunks_with_new_symbols_are_stored_in_order_before_all_others():
    ledger = ChunkLedger(chunk_symbols=2, interval_s=0.0)
    ledger.touched(np.array([0, 1]), 0, 0, now=0.0)
    ledger.storing(0, 2)
    ledger.commit()
    ledger.touched(np.array([0]), 10, 10, now=1.0)
    ledger.touched(np.array([4]), 11, 11, now=2.0)
    ledger.touched(np.array([2]), 12, 12, now=3.0)
    assert ledger.due(math.inf, symbols=5) == [1, 2, 0]
