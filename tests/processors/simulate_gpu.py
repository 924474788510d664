"""Run by `test_gpu_simulator.py` in a process of its own: the GPU kernel in numba's simulator.

Carries state through micro-batches on both backends and exits 0 only if outputs and state are
bit-equal. Usage: NUMBA_ENABLE_CUDASIM=1 python simulate_gpu.py KERNEL_CACHE PROFILE FEATURE...
"""

import sys
from pathlib import Path

import numpy as np

from processors.features.compiler import compile_kernel
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.features.grouping import GroupingWorkspace, group_by_slot

SYMBOLS, ROWS, BATCH = 5, 900, 200


def main() -> None:
    cache, profile, *names = sys.argv[1:]
    features = FeatureSet.parse(names, profile, BAR_INPUTS)
    rng = np.random.default_rng(3)
    codes = rng.choice(SYMBOLS, ROWS, p=[0.5, 0.2, 0.15, 0.1, 0.05]).astype(np.int32)
    price = np.round(100.0 + np.cumsum(rng.normal(0, 0.02, ROWS)), 2)
    series = {"price": price, "high": price + 0.05, "low": price - 0.03, "size": rng.random(ROWS)}
    results = []
    for backend in ("cpu", "gpu"):
        kernel = compile_kernel(features, backend, Path(cache))
        state = np.zeros((SYMBOLS + 2, kernel.state_width))
        workspace = GroupingWorkspace()
        outs = []
        for first in range(0, ROWS, BATCH):
            rows = slice(first, min(first + BATCH, ROWS))
            out = np.empty((len(features.columns), rows.stop - rows.start))
            columns = tuple(series[name][rows] for name in features.inputs)
            kernel.run(*group_by_slot(codes[rows], workspace), columns, state, out)
            outs.append(out)
        results.append((np.concatenate(outs, axis=1).tobytes(), state.tobytes()))
    assert results[0][0] == results[1][0], "outputs differ"
    assert results[0][1] == results[1][1], "state differs"
    print("bit-equal")


main()
