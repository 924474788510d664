"""Slots: which number a process has among those of its role on this machine.

The number is part of the transactional id and of the instance id. A process that takes a slot
over ends what its predecessor left open, and its partitions stay where they are.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import UnavailableError

_MOST_SLOTS = 1000


@contextmanager
def take_slot(directory: Path, name: str, wanted: int | None = None) -> Iterator[int]:
    """Holds a slot while the context is open; it is free again when the process ends.

    Args:
        directory: Where lock files are kept.
        name: What the slots are of.
        wanted: A certain slot, as given by the deployment (a pod's ordinal); it is not locked,
            since the deployment answers for it. None takes the lowest free one.

    Raises:
        UnavailableError: The directory is not writable, or no slot is free.
    """
    if wanted is not None:
        yield wanted
        return
    descriptor, slot = _lock_free(directory, name)
    try:
        yield slot
    finally:
        os.close(descriptor)


def _lock_free(directory: Path, name: str) -> tuple[int, int]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for slot in range(_MOST_SLOTS):
            descriptor = os.open(directory / f"{name}.{slot}.lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return descriptor, slot
    except OSError as error:
        raise UnavailableError(
            f"expected a writable directory, was not ({directory}: {error.strerror}); "
            "set MYSTOCKS_DATA_DIR"
        ) from error
    raise UnavailableError(
        f"expected a free slot of {name}, were {_MOST_SLOTS} processes ({directory}); stop some"
    )
