"""Up to where each partition of requests is answered, when answers come out of order."""

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Partition:
    next_offset: int
    committed: int
    open: set[int] = field(default_factory=set)

    @property
    def position(self) -> int:
        return min(self.open, default=self.next_offset)


class Progress:
    """Offsets of requests that were taken and not answered yet; any thread may report an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._partitions: dict[int, _Partition] = {}

    def begin(self, partition: int, offset: int) -> None:
        """A request was taken; offsets of a partition rise."""
        with self._lock:
            found = self._partitions.get(partition)
            if found is None:
                found = self._partitions[partition] = _Partition(offset, offset)
            found.open.add(offset)
            found.next_offset = offset + 1

    def done(self, partition: int, offset: int) -> None:
        """The broker has the reply, or none is needed."""
        with self._lock:
            found = self._partitions.get(partition)
            if found is not None:
                found.open.discard(offset)

    def forget(self, partition: int) -> None:
        """The partition is somebody else's now."""
        with self._lock:
            self._partitions.pop(partition, None)

    def advanced(self) -> dict[int, int]:
        """Returns the next offset of each partition that has moved since the last call."""
        with self._lock:
            moved = {}
            for number, partition in self._partitions.items():
                position = partition.position
                if position > partition.committed:
                    moved[number] = partition.committed = position
            return moved

    @property
    def waiting(self) -> int:
        """How many requests are being answered."""
        with self._lock:
            return sum(len(partition.open) for partition in self._partitions.values())
