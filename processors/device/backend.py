"""Which device computes: the setting ``backend=auto|cpu|gpu`` made concrete."""

from processors.device.errors import BackendError

BACKENDS = ("auto", "cpu", "gpu")


def resolve_backend(backend: str) -> str:
    """Return ``cpu`` or ``gpu``; ``auto`` is the GPU where one can be used, else the CPU.

    No GPU library is imported unless the answer is ``gpu``.

    Raises:
        BackendError: An unknown name, or ``gpu`` where none can be used.
    """
    if backend not in BACKENDS:
        raise BackendError(f"expected one of {', '.join(BACKENDS)}, was {backend!r} (backend)")
    if backend == "cpu":
        return "cpu"
    from processors.device import cuda_compat

    obstacle = cuda_compat.obstacle()
    if obstacle is None and not (backend == "auto" and cuda_compat.simulated()):
        return "gpu"
    if backend == "auto":
        return "cpu"
    raise BackendError(
        f"expected a usable GPU, was none: {obstacle} (backend 'gpu'); "
        "use backend=auto or cpu, or repair the driver"
    )
