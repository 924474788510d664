"""However the input is split and interleaved, outputs and state are the same, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.features.compute import compute_indicators

SYMBOLS = 4


def _alone(kernel, codes, series, run_batches):
    """Each symbol in one batch of its own: the reference."""
    out = np.empty((len(kernel.feature_set.columns), len(codes)))
    state = np.zeros((SYMBOLS, kernel.state_width))
    for code in range(SYMBOLS):
        rows = np.flatnonzero(codes == code)
        own = {name: values[rows] for name, values in series.items()}
        out[:, rows] = run_batches(kernel, codes[rows], own, [len(rows)], state)
    return out, state


@st.composite
def _splits(draw, longest=400):
    """Codes of some rows, skewed towards one symbol, and batch lengths that add up."""
    count = draw(st.integers(1, longest))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = rng.choice(SYMBOLS, count, p=[0.6, 0.2, 0.15, 0.05])
    cuts = sorted(draw(st.sets(st.integers(1, count), max_size=12)) | {0, count})
    return codes, np.diff(cuts)


@pytest.mark.parametrize("profile", ["talib", "cn"])
@settings(max_examples=60)
@given(split=_splits(), seed=st.integers(0, 1000), kind=st.sampled_from(["walk", "cents"]))
def test_any_split_and_interleaving_gives_the_same_bits(
    profile, every_kernel, bars, run_batches, split, seed, kind
):
    codes, lengths = split
    kernel = every_kernel(profile)
    series = bars(kind, len(codes), seed)
    expected, expected_state = _alone(kernel, codes, series, run_batches)
    state = np.zeros((SYMBOLS, kernel.state_width))
    out = run_batches(kernel, codes, series, lengths, state)
    assert out.tobytes() == expected.tobytes()
    assert state.tobytes() == expected_state.tobytes()


@settings(max_examples=30)
@given(cut=st.integers(0, 500))
def test_a_restored_snapshot_goes_on_as_if_never_stopped(every_kernel, bars, run_batches, cut):
    kernel = every_kernel("talib")
    series = bars("walk", 500)
    codes = np.random.default_rng(1).integers(0, SYMBOLS, 500)
    whole_state = np.zeros((SYMBOLS, kernel.state_width))
    whole = run_batches(kernel, codes, series, [500], whole_state)

    state = np.zeros((SYMBOLS, kernel.state_width))
    before = {name: values[:cut] for name, values in series.items()}
    run_batches(kernel, codes[:cut], before, [cut], state)
    snapshot = state.tobytes()
    restored = np.frombuffer(snapshot).reshape(state.shape).copy()
    after = {name: values[cut:] for name, values in series.items()}
    out = run_batches(kernel, codes[cut:], after, [500 - cut], restored)
    assert out.tobytes() == whole[:, cut:].tobytes()
    assert restored.tobytes() == whole_state.tobytes()


@pytest.mark.parametrize("profile", ["talib", "cn"])
def test_a_fused_kernel_and_the_single_ones_are_bit_equal(
    profile, every_kernel, bars, run_batches, kernel_cache
):
    kernel = every_kernel(profile)
    for kind in ("walk", "cents", "flat_start"):
        series = bars(kind, 1000)
        state = np.zeros((1, kernel.state_width))
        fused = run_batches(kernel, np.zeros(1000, np.int32), series, [1000], state)
        single = compute_indicators(kernel.feature_set.names, series, profile, kernel_cache)
        for column, values in zip(kernel.feature_set.columns, fused, strict=True):
            assert single[column].tobytes() == values.tobytes(), column


def test_rows_beyond_the_batch_and_other_symbols_stay_untouched(every_kernel, bars):
    kernel = every_kernel("talib")
    series = bars("walk", 3)
    state = np.full((3, kernel.state_width), 7.0)
    state[1] = 0.0
    out = np.full((len(kernel.feature_set.columns), 5), -1.0)
    kernel.run(
        np.arange(3, dtype=np.int32),
        np.array([0, 3], np.int32),
        np.array([1], np.int32),
        tuple(series[name] for name in kernel.feature_set.inputs),
        state,
        out,
    )
    assert (out[:, 3:] == -1.0).all()
    assert (state[[0, 2]] == 7.0).all()
    assert state[1, 0] == 3.0
