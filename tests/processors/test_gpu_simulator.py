"""The GPU backend without a GPU: numba's simulator, and compiling down to PTX."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from processors.device import cuda_compat
from processors.device.backend import resolve_backend
from processors.device.errors import BackendError
from processors.features.compiler import compile_kernel
from processors.features.feature_set import BAR_INPUTS, FeatureSet
from processors.features.kernel import kernel_signature
from processors.features.kernel_cache import load_generated
from processors.indicators.registry import indicators

ROOT = Path(__file__).parents[2]
needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)


def _nvrtc_is_missing() -> bool:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception:
        return True
    return False


@needs_numba_cuda
@pytest.mark.parametrize("profile", ["talib", "cn"])
def test_the_simulated_gpu_is_bit_equal_to_the_cpu(profile, every_kernel, kernel_cache):
    names = every_kernel(profile).feature_set.names
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("simulate_gpu.py"),
            kernel_cache,
            profile,
            *names,
        ],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "bit-equal"


@needs_numba_cuda
@pytest.mark.skipif(_nvrtc_is_missing(), reason="NVRTC is not installed")
def test_every_indicator_compiles_to_ptx_without_calls(kernel_cache, monkeypatch):
    from processors.device.gpu_kernel import gpu_source

    cuda = cuda_compat.numba_cuda()
    hopper = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: hopper)
    features = FeatureSet.parse(indicators(), inputs=BAR_INPUTS)
    kernel = load_generated(gpu_source(features), kernel_cache).run
    ptx, _ = cuda.compile(
        kernel, kernel_signature(len(features.inputs)), cc=(9, 0), device=False, abi="numba"
    )
    assert ".target sm_90" in ptx
    assert not re.search(r"\bcall\b", ptx)


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch, kernel_cache):
    monkeypatch.setattr(cuda_compat, "obstacle", lambda: "none is plugged in")
    assert resolve_backend("auto") == "cpu"
    features = FeatureSet.parse(["obv"])
    assert compile_kernel(features, cache_dir=kernel_cache).backend == "cpu"


def test_a_gpu_that_is_asked_for_and_absent_is_an_error_with_the_reason(monkeypatch):
    monkeypatch.setattr(cuda_compat, "obstacle", lambda: "none is plugged in")
    with pytest.raises(BackendError, match="none is plugged in"):
        resolve_backend("gpu")
    with pytest.raises(BackendError, match="auto, cpu, gpu, was 'tpu'"):
        resolve_backend("tpu")
