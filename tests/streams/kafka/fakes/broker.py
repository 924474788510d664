"""What a broker holds: logs, committed offsets, members and producers; and the faults to inject."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

from confluent_kafka import Message

if TYPE_CHECKING:
    from tests.streams.kafka.fakes.producer import FakeProducer

SOURCE, OUTPUT, STATE, GROUP = "ticks", "features.t", "g.state", "g"
DEAD, LATE, CLOCK = "ticks.dead-letter", "ticks.late", "clock"


class CrashError(Exception):
    """The process dies here."""


class Broker:
    """Topics, committed offsets, and the faults to inject.

    `faults` maps a step to a function called with how often the step was reached; it raises what
    is to happen there.
    """

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        self.logs: dict[tuple[str, int], list[Message]] = {}
        self.low: Counter[tuple[str, int]] = Counter()
        # Offsets without a record, as an aborted transaction leaves them.
        self.holes: set[tuple[str, int, int]] = set()
        self.committed: dict[int, tuple[int, str]] = {}
        self.faults: dict[str, Callable[[int], None]] = {}
        self.reached: Counter[str] = Counter()
        # The group: of each member the generation that it may commit under.
        self.generation = 0
        self.members: dict[object, int] = {}
        # The newest producer of each transactional id; the others are fenced.
        self.producers: dict[str, FakeProducer] = {}
        self.slots = count()
        # How many more records of each source partition arrive with each poll; None: all are there.
        self.arriving: int | None = None
        self._arrived = 0
        # Whether it answers neither fetches nor questions.
        self.away = False

    def polled(self) -> None:
        self._arrived += self.arriving or 0

    def end(self, topic: str, partition: int) -> int:
        """Returns the offset after the newest record that has arrived."""
        end = len(self.log(topic, partition))
        return end if topic != SOURCE or self.arriving is None else min(end, self._arrived)

    def reach(self, step: str) -> None:
        self.reached[step] += 1
        if step in self.faults:
            self.faults[step](self.reached[step])

    def log(self, topic: str, partition: int) -> list[Message]:
        return self.logs.setdefault((topic, partition), [])

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes | None,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        log = self.log(topic, partition)
        log.append(
            Message(
                topic=topic,
                partition=partition,
                offset=len(log),
                key=key,
                value=value,
                headers=list(headers) or None,
                timestamp=(1, timestamp_ms),
            )
        )

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.low[topic, partition] = offset

    def announcements(self, partition: int) -> list[dict]:
        """Returns everything that the clock had written."""
        return [row for m in self.log(CLOCK, partition) for row in json.loads(m.value())]

    def rows(self, partition: int) -> list[tuple[int, dict]]:
        """Returns (row identity, row) of everything committed to the output topic."""
        found = []
        for message in self.log(OUTPUT, partition):
            first = int(dict(message.headers())["first_row"])
            found += [(first + i, row) for i, row in enumerate(json.loads(message.value()))]
        return found
