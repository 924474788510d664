"""What runs a feature set: the port, and the CPU's side of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from processors.features.feature_set import FeatureSet
from processors.features.kernel_cache import load_generated

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int32]

_CPU_HEAD = '''"""Generated kernel of a feature set for the CPU; deleting it is safe."""

from numba import njit

device = njit(error_model="numpy", nogil=True, forceinline=True)
kernel = njit("{signature}", error_model="numpy", nogil=True, cache=True)

'''
_CPU_ENTRY = """

@kernel
def run(order, starts, slots, segments, {columns}state, out{extra}):
    for s in range(segments):
        segment(order, starts[s], starts[s + 1], {columns}state[slots[s]], out{extra})
"""


class FeatureKernel(Protocol):
    """Computes a feature set over micro-batches; state is carried by the caller.

    Attributes:
        backend: ``cpu`` or ``gpu``.
        feature_set: What is computed.
        state_width: Elements of a symbol's state row; a row of zeros is a symbol never seen.
    """

    backend: str
    feature_set: FeatureSet
    state_width: int

    def run(
        self,
        order: Ints,
        starts: Ints,
        slots: Ints,
        inputs: tuple[Floats, ...],
        state: Floats,
        out: Floats,
    ) -> None:
        """Compute one micro-batch and advance the state.

        Args:
            order: Row numbers grouped by symbol, each group in arrival order, int32[n].
            starts: Where each group begins in ``order``, and n at the end, int32[m + 1].
            slots: State row of each group's symbol, int32[m], each at most once.
            inputs: The columns of ``feature_set.inputs``, float64[n] each.
            state: State rows, float64[capacity, state_width], C-contiguous; advanced in place.
            out: float64[columns, at least n], C-contiguous; ``out[k, i]`` is set for every row i.
        """
        ...


def kernel_signature(inputs: int, extra_types: str = "") -> str:
    """Return the numba signature of a kernel with so many input columns."""
    return (
        "void(int32[::1],int32[::1],int32[::1],int64,"
        + "float64[::1]," * inputs
        + "float64[:,::1],float64[:,::1]"
        + extra_types
        + ")"
    )


def cpu_module(body: str, inputs: tuple[str, ...], extra: tuple[str, ...], extra_types: str) -> str:
    """Return the text of a CPU module around a kernel text of `source.py`."""
    signature = kernel_signature(len(inputs), extra_types)
    entry = _CPU_ENTRY.format(
        columns="".join(f"{name}_column, " for name in inputs),
        extra="".join(f", {name}" for name in extra),
    )
    return _CPU_HEAD.format(signature=signature) + body + entry


class CpuKernel:
    """The fused kernel compiled by `numba.njit`; releases the GIL while it runs."""

    backend = "cpu"

    def __init__(self, feature_set: FeatureSet, cache_dir: Path | None = None) -> None:
        self.feature_set = feature_set
        self.state_width = feature_set.layout.width
        text = cpu_module(feature_set.kernel_source, feature_set.inputs, (), "")
        self._run: Callable[..., Any] = load_generated(text, cache_dir).run

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
        self._run(order, starts, slots, len(slots), *inputs, state, out)
