"""A damaged log is a finding, and what is beside the damage can be read."""

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from schemas.settings import load_settings
from streams.kafka.bounded_read import TopicReader
from streams.kafka.errors import DamagedLogError

DAMAGED, INTACT = 0, 1


class MisledConsumer:
    """As librdkafka: what it does after a damaged batch is refused a moment later.

    It goes on inside the batch, takes text for an offset and asks the broker for that one; the
    answer belongs to no assignment.
    """

    def __init__(self) -> None:
        self._events: list[Message] = []
        self._refusals: list[Message] = []

    def get_watermark_offsets(self, _place: TopicPartition, _timeout: float) -> tuple[int, int]:
        return 0, 2

    def assign(self, places: list[TopicPartition]) -> None:
        self._events, self._refusals = self._refusals, []
        if any(place.partition == DAMAGED for place in places):
            self._events += [_message(DAMAGED, 0, KafkaError._BAD_MSG)]
            self._refusals = [_message(DAMAGED, 2**61, KafkaError._AUTO_OFFSET_RESET)]
        if any(place.partition == INTACT for place in places):
            self._events += [_message(INTACT, offset) for offset in (0, 1)]

    def consume(self, _count: int, _timeout: float) -> list[Message]:
        events, self._events = self._events, []
        return events

    def unassign(self) -> None:
        self._events = []

    def close(self) -> None:
        pass


def _message(partition: int, offset: int, code: int | None = None) -> Message:
    error = None if code is None else KafkaError(code)
    return Message(topic="ticks", partition=partition, offset=offset, error=error)


def test_a_partition_beside_a_damaged_one_is_read(monkeypatch):
    monkeypatch.setattr("streams.kafka.bounded_read.reader", lambda *_, **__: MisledConsumer())
    with TopicReader(load_settings(), "ticks", "test") as log:
        for _ in range(2):
            with pytest.raises(DamagedLogError, match="at offset 0 of ticks 0, was damaged"):
                list(log.read(DAMAGED))
            assert [message.offset() for message in log.read(INTACT)] == [0, 1]
