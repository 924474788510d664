"""Kernels compiled once a machine, random bars, and a micro-batch loop."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from processors.features.compiler import compile_kernel
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.kernel import FeatureKernel

FEATURES = {
    "talib": (
        "sma", "ema", "rsi", "macd", "bollinger", "atr", "roc", "vwap", "obv", "stddev", "kdj",
        "wma", "momentum", "zscore", "sma_100", "macd_3_10_4", "vwap_3", "kdj_5_2_4", "wma_70",
        "zscore_2",
    ),
    "cn": ("ema", "rsi", "macd", "atr", "kdj", "sma_100", "macd_3_10_4"),
}  # fmt: skip
"""Every indicator, and under ``cn`` those that differ there."""


@pytest.fixture(scope="session")
def kernel_cache(request: pytest.FixtureRequest) -> Path:
    """A directory of compiled kernels that outlives the test run."""
    return request.config.cache.mkdir("kernels")


@pytest.fixture(scope="session")
def every_kernel(kernel_cache: Path) -> Callable[[str], FeatureKernel]:
    """Profile to the CPU kernel of its set in `FEATURES`."""

    @cache
    def build(profile: str) -> FeatureKernel:
        features = FeatureSet.parse(FEATURES[profile], profile, BAR_INPUTS)
        return compile_kernel(features, "cpu", kernel_cache)

    return build


@pytest.fixture(scope="session")
def bars() -> Callable[..., dict[str, np.ndarray]]:
    """Random bars: ``walk``, ``cents`` (rounded, often unchanged) or ``flat_start``."""

    def make(kind: str, count: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        price = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, count)))
        if kind == "cents":
            price = np.round(50.0 + np.cumsum(rng.integers(-1, 2, count)) * 0.01, 2)
        if kind == "flat_start":
            price[: count // 3] = price[0]
        spread = np.round(rng.random((2, count)), 2) * (0.0 if kind == "flat_start" else 0.2)
        size = np.floor(rng.exponential(300.0, count)) + 1.0
        return {"price": price, "high": price + spread[0], "low": price - spread[1], "size": size}

    return make


@pytest.fixture(scope="session")
def run_batches() -> Callable[..., np.ndarray]:
    """Feed rows to a kernel in the given batch lengths; state is advanced in place."""

    def run(
        kernel: FeatureKernel,
        codes: np.ndarray,
        series: dict[str, np.ndarray],
        lengths: Iterable[int],
        state: np.ndarray,
    ) -> np.ndarray:
        workspace = GroupingWorkspace(slots=2, rows=2)
        results, first = [], 0
        for length in lengths:
            rows = slice(first, first + length)
            out = np.full((len(kernel.feature_set.columns), length), -1.0)
            columns = tuple(series[name][rows] for name in kernel.feature_set.inputs)
            groups = group_by_slot(codes[rows].astype(np.int32), workspace)
            kernel.run(*groups, columns, state, out)
            results.append(out)
            first += length
        assert first == len(codes)
        return np.concatenate(results, axis=1)

    return run
