"""On a real GPU (`pytest -m gpu`); needs only numpy, numba-cuda, cupy and pytest."""

import numpy as np
import pytest

from processors.device import cuda_compat
from processors.features.compiler import compile_kernel
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.indicators.registry import indicators

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        cuda_compat.simulated() or cuda_compat.obstacle() is not None,
        reason=f"no GPU: {cuda_compat.obstacle()}",
    ),
]


def _close(actual, expected, level):
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9 * level)


@pytest.mark.parametrize("profile", ["talib", "cn"])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_a_gpu_agrees_with_the_cpu_and_its_state_goes_on_there(
    profile, skew, kernel_cache, bars, run_batches
):
    features = FeatureSet.parse(
        [name for name in indicators() if name != "zscore"], profile, BAR_INPUTS
    )
    symbols, rows = 200, 40_000
    weight = 1.0 / np.arange(1, symbols + 1) ** skew
    codes = np.random.default_rng(2).choice(symbols, rows, p=weight / weight.sum())
    series = bars("walk", rows)
    lengths = [1, 99, 9_900, 30_000]
    cpu = compile_kernel(features, "cpu", kernel_cache)
    gpu = compile_kernel(features, "gpu", kernel_cache)
    assert (gpu.backend, gpu.state_width) == ("gpu", cpu.state_width)
    cpu_state = np.zeros((symbols, cpu.state_width))
    gpu_state = np.zeros((symbols, gpu.state_width))
    expected = run_batches(cpu, codes, series, lengths, cpu_state)
    actual = run_batches(gpu, codes, series, lengths, gpu_state)
    for row, column in enumerate(features.columns):
        level = series["size"].sum() if column == "obv" else 100.0
        _close(actual[row], expected[row], level)
    assert np.array_equal(gpu_state[:, 0], cpu_state[:, 0])

    more = {name: values[:5_000] for name, values in series.items()}
    on_cpu = run_batches(cpu, codes[:5_000], more, [5_000], gpu_state.copy())
    on_gpu = run_batches(gpu, codes[:5_000], more, [5_000], gpu_state.copy())
    for row, column in enumerate(features.columns):
        level = series["size"].sum() if column == "obv" else 100.0
        _close(on_gpu[row], on_cpu[row], level)


def test_auto_takes_the_gpu(kernel_cache):
    features = FeatureSet.parse(["ema_12"])
    assert compile_kernel(features, "auto", kernel_cache).backend == "gpu"
