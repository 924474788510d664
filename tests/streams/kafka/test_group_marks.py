"""What a group has committed, also while its coordinator comes back."""

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from schemas.settings import load_settings
from streams.kafka.errors import KafkaUnavailableError
from streams.kafka.group_marks import committed_marks
from streams.kafka.snapshots import CommitMark

MARK = CommitMark(7, "ticks/0:0", 9, 7, chunks=0, stored=0, set_hash="h")


class ReturningCoordinator:
    """A consumer whose questions meet these errors before there is an answer."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.asked = 0

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        self.asked += 1
        if self.errors:
            raise KafkaException(KafkaError(self.errors.pop(0)))
        first, *others = places
        return [TopicPartition(first.topic, first.partition, 9, metadata=MARK.encode()), *others]

    def close(self) -> None:
        pass


@pytest.fixture
def marks(monkeypatch):
    """Asks this consumer for the marks of a group."""

    def ask(consumer: ReturningCoordinator) -> dict[int, CommitMark]:
        monkeypatch.setattr("streams.kafka.group_marks.offsets_client", lambda *_: consumer)
        return committed_marks(load_settings(), "g", "ticks", 2)

    return ask


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    ],
)
def test_a_coordinator_that_is_coming_back_is_asked_again(marks, code):
    consumer = ReturningCoordinator(code, code)
    assert marks(consumer) == {0: MARK}
    assert consumer.asked == 3


def test_a_refusal_is_final(marks):
    consumer = ReturningCoordinator(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaUnavailableError, match="the offsets of group g"):
        marks(consumer)
    assert consumer.asked == 1
