"""The GPU's side of a feature set: one thread a symbol's segment, state handed in and back."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from processors.device import cuda_compat
from processors.features.feature_set import FeatureSet
from processors.features.kernel import Floats, Ints, kernel_signature
from processors.features.kernel_cache import load_generated

THREADS = 32
"""Threads a block: a warp, so that few symbols still spread over many multiprocessors."""

_HEAD = '''"""Generated kernel of a feature set for a GPU; deleting it is safe."""

from processors.device.cuda_compat import numba_cuda

cuda = numba_cuda()
device = cuda.jit(device=True)

'''
_ENTRY = """

def run(order, starts, slots, segments, {columns}state, out):
    s = cuda.grid(1)
    if s < segments:
        segment(order, starts[s], starts[s + 1], {columns}state[slots[s]], out)
"""


def gpu_source(feature_set: FeatureSet) -> str:
    """Return the text of the GPU module; its ``run`` is not decorated yet."""
    columns = "".join(f"{name}_column, " for name in feature_set.inputs)
    return _HEAD + feature_set.kernel_source + _ENTRY.format(columns=columns)


class GpuKernel:
    """The fused kernel compiled by numba-cuda.

    The rows of the symbols at hand travel to the GPU and back with every batch, so the caller's
    state is always current and the next batch may run on either backend.
    """

    backend = "gpu"

    def __init__(self, feature_set: FeatureSet, cache_dir: Path | None = None) -> None:
        self.feature_set = feature_set
        self.state_width = feature_set.layout.width
        self._cuda = cuda_compat.numba_cuda()
        module = load_generated(gpu_source(feature_set), cache_dir)
        jit = self._cuda.jit(kernel_signature(len(feature_set.inputs)))
        self._run = jit(module.run)
        self._buffers: dict[str, Any] = {}

    def run(
        self,
        order: Ints,
        starts: Ints,
        slots: Ints,
        inputs: tuple[Floats, ...],
        state: Floats,
        out: Floats,
    ) -> None:
        """Compute one micro-batch; see `FeatureKernel.run`."""
        rows, segments = len(order), len(slots)
        if segments == 0:
            return
        columns = [
            self._upload(name, column[:rows])
            for name, column in zip(self.feature_set.inputs, inputs, strict=True)
        ]
        touched = self._upload("state", state[slots].reshape(-1))
        touched = touched.reshape(segments, self.state_width)
        results = self._buffer("out", len(self.feature_set.columns) * rows, np.dtype(np.float64))
        results = results.reshape(len(self.feature_set.columns), rows)
        self._run[-(-segments // THREADS), THREADS](
            self._upload("order", order),
            self._upload("starts", starts),
            self._upload("slots", np.arange(segments, dtype=np.int32)),
            segments,
            *columns,
            touched,
            results,
        )
        state[slots] = touched.copy_to_host()
        out[:, :rows] = results.copy_to_host()

    def _upload(self, name: str, values: npt.NDArray[Any]) -> Any:
        """Return a device copy of a one-dimensional array."""
        target = self._buffer(name, len(values), values.dtype)
        target.copy_to_device(np.ascontiguousarray(values))
        return target

    def _buffer(self, name: str, length: int, dtype: np.dtype[Any]) -> Any:
        """Return ``length`` elements of the device buffer called ``name``; it grows as needed."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[0] < length:
            capacity = 1 << max(length - 1, 1).bit_length()
            buffer = self._buffers[name] = self._cuda.device_array(capacity, dtype)
        return buffer[:length]
