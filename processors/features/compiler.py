"""From a feature set to something that runs it, on the CPU or on a GPU."""

from pathlib import Path

from processors.device.backend import resolve_backend
from processors.features.feature_set import FeatureSet
from processors.features.kernel import CpuKernel, FeatureKernel


def compile_kernel(
    feature_set: FeatureSet, backend: str = "auto", cache_dir: Path | None = None
) -> FeatureKernel:
    """Return a compiled kernel; loads it from the cache directory where it was compiled before.

    Args:
        feature_set: What is computed.
        backend: ``cpu``, ``gpu``, or ``auto``: a GPU where one can be used, else the CPU.
        cache_dir: Where compiled kernels are kept (see `kernel_cache`).

    Raises:
        BackendError: The backend is unknown, or ``gpu`` and no GPU can be used.
    """
    if resolve_backend(backend) == "gpu":
        from processors.device.gpu_kernel import GpuKernel

        return GpuKernel(feature_set, cache_dir)
    return CpuKernel(feature_set, cache_dir)
