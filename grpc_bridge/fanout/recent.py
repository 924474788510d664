"""A dictionary that is bounded by the bytes of what it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """Values by key; those that were used longest ago are dropped first.

    Args:
        max_bytes: Of all values; the newest one is always kept.
        dropped: Told of each value that is dropped.
    """

    def __init__(self, max_bytes: int, dropped: Callable[[Value], None] | None = None) -> None:
        self._max_bytes = max_bytes
        self._dropped = dropped
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key) -> Value | None:
        """Returns a value, which counts as used; None if it is not there."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Adds or replaces a value of so many bytes."""
        before = self._values.pop(key, None)
        if before is not None:
            self._bytes -= before[1]
        self._values[key] = value, size
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._values) > 1:
            _, (oldest, freed) = self._values.popitem(last=False)
            self._bytes -= freed
            if self._dropped is not None:
                self._dropped(oldest)
