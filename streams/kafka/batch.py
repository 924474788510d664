"""A micro-batch: the messages of one partition that were polled together."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from schemas import headers as names

if TYPE_CHECKING:
    from streams.kafka.message_memory import MessageFields

# So many messages are worth more than one call for a field of all of them.
_MANY = 64
# A record that was sent again for some groups says so beside its attempt.
_HEADERS_OF_REQUEUED = 2


class PartitionBatch:
    """Messages of one partition, in offset order.

    Attributes:
        partition: Partition that the messages came from.
        messages: The messages.
    """

    def __init__(self, partition: int, messages: list[Message]) -> None:
        self.partition = partition
        self.messages = messages

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def values(self) -> Sequence[bytes | None]:
        """Message values."""
        return self._fields or list(map(Message.value, self.messages))

    @property
    def size(self) -> int:
        """Bytes of all values."""
        if self._fields is not None:
            return int(self._fields.starts[-1])
        return sum(map(len, self.messages))

    @property
    def first_offset(self) -> int:
        """Offset of the first message."""
        return int(self.messages[0].offset())

    @property
    def next_offset(self) -> int:
        """Offset after the last message."""
        return int(self.messages[-1].offset()) + 1

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Offsets of all messages, int64 [n]."""
        return np.fromiter(map(Message.offset, self.messages), np.int64, len(self.messages))

    @property
    def timestamps_ms(self) -> NDArray[np.int64]:
        """Record timestamps in milliseconds since 1970 (UTC), int64 [n]; -1 is unknown."""
        if self._fields is not None:
            return self._fields.timestamps_ms
        times = map(itemgetter(1), map(Message.timestamp, self.messages))
        return np.fromiter(times, np.int64, len(self.messages))

    @property
    def content_types(self) -> list[str | None] | None:
        """Content type of every message; None where no message has headers."""
        if not self._any_headers:
            return None
        return [header(entry, names.CONTENT_TYPE) if entry else None for entry in self._headers]

    def for_group(self, group: str) -> "PartitionBatch":
        """Returns the batch without what was sent again for other groups only."""
        if not self._any_headers:
            return self
        if max(map(len, filter(None, self._headers))) < _HEADERS_OF_REQUEUED:
            return self
        mine = [
            message
            for message, entry in zip(self.messages, self._headers, strict=True)
            if not entry or _is_for(entry, group)
        ]
        return self if len(mine) == len(self.messages) else PartitionBatch(self.partition, mine)

    @cached_property
    def _headers(self) -> list[Any]:
        return list(map(Message.headers, self.messages))

    @property
    def _any_headers(self) -> bool:
        if self._fields is not None:
            return self._fields.any_headers
        return any(self._headers)

    @cached_property
    def _fields(self) -> "MessageFields | None":
        if len(self.messages) < _MANY:
            return None
        # Compiled code, which what reads few messages does without.
        from streams.kafka.message_memory import read_fields

        return read_fields(self.messages)


def header(headers: Iterable[tuple[str, Any]] | None, name: str) -> str | None:
    """Returns the last value of a header as text, or None."""
    found = None
    for key, value in headers or ():
        if key == name and value is not None:
            found = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return found


def _is_for(headers: Iterable[tuple[str, Any]], group: str) -> bool:
    groups = header(headers, names.FOR_GROUPS)
    return groups is None or group in names.split_groups(groups)


def by_partition(messages: Sequence[Message]) -> list[PartitionBatch]:
    """Splits polled messages by partition, keeping their order."""
    split: dict[int, list[Message]] = {}
    # librdkafka hands messages over in runs of one partition.
    for partition, run in groupby(messages, Message.partition):
        split.setdefault(partition, []).extend(run)
    return [PartitionBatch(partition, part) for partition, part in split.items()]
