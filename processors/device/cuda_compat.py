"""The only module that touches CUDA: probing for a GPU, and numba-cuda."""

import ctypes
import importlib.util
import os
from functools import cache
from typing import Any

from processors.device.errors import BackendError


def simulated() -> bool:
    """Tell whether numba's CUDA simulator stands in for a GPU (tests only, pure Python)."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def obstacle() -> str | None:
    """Return why no GPU can be used, None if one can.

    Asks the driver itself and imports no GPU library: those import well without a GPU.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        return "the package numba-cuda is not installed"
    if simulated():
        return None
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "the NVIDIA driver (libcuda.so.1) is not installed"
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return f"the NVIDIA driver answered with error {status}"
    return None if count.value > 0 else "the NVIDIA driver sees no device"


@cache
def numba_cuda() -> Any:
    """Return the module `numba.cuda`.

    Raises:
        BackendError: numba-cuda or a CUDA library that it needs is missing.
    """
    # A micro-batch has few symbols: a small grid is meant, not a mistake to be warned of.
    os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
    try:
        _stand_in_for_missing_runtime()
        from numba import cuda
    except (ImportError, RuntimeError) as error:
        raise BackendError(
            f"expected numba-cuda with its CUDA libraries, was {error} (backend 'gpu'); "
            "install the extra 'gpu'"
        ) from error
    return cuda


def _stand_in_for_missing_runtime() -> None:
    """Let numba-cuda 0.30 be imported without libcudart, which it asks for its version only.

    The simulator and compiling to PTX need no CUDA runtime.
    """
    from cuda.bindings import runtime

    try:
        runtime.getLocalRuntimeVersion()
    except Exception:
        if not simulated() and obstacle() is None:
            raise
        runtime.getLocalRuntimeVersion = lambda: (0, 12_090)
