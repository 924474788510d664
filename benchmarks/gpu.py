"""The fused kernel of the default feature set on the CPU and on a GPU, by batch size and skew.

Needs only numpy and numba-cuda (without a usable GPU the CPU's figures alone are reported):

    PYTHONPATH=. python benchmarks/gpu.py [--quick] [--json]

Times are per tick, grouping by symbol and all transfers included. Keys of the JSON object:
``gpu_available``; ``<backend>_ns_per_tick_<batch>_<zipf|uniform>``; ``gpu_speedup_<batch>_<skew>``;
``gpu_max_error`` (difference from the CPU, relative to the price level).
"""

import argparse
import json
import time

import numpy as np

from processors.device import cuda_compat
from processors.features.compiler import compile_kernel
from processors.features.feature_set import FeatureSet
from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.kernel import FeatureKernel

DEFAULT_SET = (
    "sma_20", "sma_50", "ema_12", "ema_26", "rsi_14", "macd_12_26_9", "bollinger_20_2",
)  # fmt: skip
SYMBOLS = 500
PRICE = 100.0


def workload(rows: int, skew: str) -> tuple[np.ndarray, np.ndarray]:
    """Return symbol codes (Zipf: the hottest of 500 has 15 %) and prices, seeded."""
    rng = np.random.default_rng(7)
    weight = 1.0 / np.arange(1, SYMBOLS + 1) if skew == "zipf" else np.ones(SYMBOLS)
    codes = rng.choice(SYMBOLS, rows, p=weight / weight.sum()).astype(np.int32)
    return codes, PRICE * np.exp(np.cumsum(rng.normal(0, 1e-5, rows)))


def measure(
    kernel: FeatureKernel, codes: np.ndarray, prices: np.ndarray, batch: int, seconds: float
) -> tuple[float, np.ndarray]:
    """Return ns per tick (the median of the batches) and the first batch's output."""
    state = np.zeros((SYMBOLS, kernel.state_width))
    out = np.empty((len(kernel.feature_set.columns), batch))
    workspace = GroupingWorkspace(SYMBOLS, batch)
    times: list[float] = []
    first_out = None
    position, end = 0, time.perf_counter() + seconds
    while len(times) < 4 or time.perf_counter() < end:
        rows = slice(position, position + batch)
        began = time.perf_counter()
        groups = group_by_slot(codes[rows], workspace)
        kernel.run(*groups, (prices[rows],), state, out)
        times.append(time.perf_counter() - began)
        first_out = out.copy() if first_out is None else first_out
        position = position + batch if position + 2 * batch <= len(codes) else 0
    assert first_out is not None
    return float(np.median(times[1:]) / batch * 1e9), first_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller batches, under 45 s")
    parser.add_argument("--json", action="store_true", help="last line: one flat JSON object")
    options = parser.parse_args()
    batches = (1_000, 10_000, 100_000) if options.quick else (1_000, 10_000, 100_000, 1_000_000)
    seconds = 0.5 if options.quick else 3.0

    obstacle = cuda_compat.obstacle()
    features = FeatureSet.parse(DEFAULT_SET)
    kernels = [compile_kernel(features, "cpu")]
    if obstacle is None:
        kernels.append(compile_kernel(features, "gpu"))
    else:
        print(f"no GPU: {obstacle}")
    figures: dict[str, float] = {"gpu_available": float(obstacle is None)}
    for skew in ("zipf", "uniform"):
        codes, prices = workload(max(batches), skew)
        for batch in batches:
            outputs = []
            for kernel in kernels:
                cost, out = measure(kernel, codes, prices, batch, seconds)
                figures[f"{kernel.backend}_ns_per_tick_{batch}_{skew}"] = round(cost, 2)
                outputs.append(out)
                print(f"{kernel.backend} {batch:>9,} ticks {skew:8} {cost:9.1f} ns/tick")
            if len(outputs) == 2:
                key = f"ns_per_tick_{batch}_{skew}"
                figures[f"gpu_speedup_{batch}_{skew}"] = round(
                    figures[f"cpu_{key}"] / figures[f"gpu_{key}"], 3
                )
                assert np.array_equal(np.isnan(outputs[0]), np.isnan(outputs[1]))
                error = float(np.nanmax(np.abs(outputs[0] - outputs[1]), initial=0.0)) / PRICE
                figures["gpu_max_error"] = max(figures.get("gpu_max_error", 0.0), error)
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
