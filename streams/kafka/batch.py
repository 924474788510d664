"""A micro-batch: the messages of one partition that were polled together."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from schemas import headers as names


class PartitionBatch:
    """Messages of one partition, in offset order.

    Attributes:
        partition: Partition that the messages came from.
        messages: The messages.
    """

    def __init__(self, partition: int, messages: Sequence[Message]) -> None:
        self.partition = partition
        self.messages = messages

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def values(self) -> list[bytes | None]:
        """Message values."""
        return list(map(Message.value, self.messages))

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
        times = map(itemgetter(1), map(Message.timestamp, self.messages))
        return np.fromiter(times, np.int64, len(self.messages))

    @property
    def content_types(self) -> list[str | None] | None:
        """Content type of every message; None where no message has headers."""
        headers = list(map(Message.headers, self.messages))
        if not any(headers):
            return None
        return [header(entry, names.CONTENT_TYPE) if entry else None for entry in headers]


def header(headers: Iterable[tuple[str, Any]] | None, name: str) -> str | None:
    """Returns the last value of a header as text, or None."""
    found = None
    for key, value in headers or ():
        if key == name and value is not None:
            found = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return found


def by_partition(messages: Sequence[Message]) -> list[PartitionBatch]:
    """Splits polled messages by partition, keeping their order."""
    split: dict[int, list[Message]] = {}
    # librdkafka hands messages over in runs of one partition.
    for partition, run in groupby(messages, Message.partition):
        split.setdefault(partition, []).extend(run)
    return [PartitionBatch(partition, part) for partition, part in split.items()]
