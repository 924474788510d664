"""What is asked of the cluster."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, Uuid
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.admin import id_text, partition_count
from streams.kafka.errors import KafkaUnavailableError
from streams.kafka.history.store import SegmentStore


@pytest.mark.parametrize(
    ("most", "least", "text"),
    [
        (-1, -1, "_____________________w"),
        (0x0123456789ABCDEF, 0x0123456789ABCDEF, "ASNFZ4mrze8BI0VniavN7w"),
        (-0x0400000000000000, 0, "_AAAAAAAAAAAAAAAAAAAAA"),
    ],
)
def test_ids_are_written_as_kafka_writes_them_and_may_stand_in_a_path(most, least, text):
    assert id_text(Uuid(most, least)) == text


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_whatever_id_a_topic_has_its_history_stays_in_a_directory_of_its_own(most, least):
    text = id_text(Uuid(most, least))
    store = SegmentStore(Path("history"), 0, 0)
    assert store._directory("bars", text, 3).parts == ("history", "bars", text, "3")


class Admin:
    """Knows the topic `new` from its fourth answer on; until then it has an error, or is absent."""

    def __init__(self, error: KafkaError | None) -> None:
        self._error = error
        self._answers = 0

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        assert timeout > 0
        self._answers += 1
        if topic == "new" and self._answers > 3:
            found = {topic: SimpleNamespace(error=None, partitions={0: None, 1: None})}
        elif self._error is not None:
            found = {topic: SimpleNamespace(error=self._error, partitions={})}
        else:
            found = {}
        return SimpleNamespace(topics=found)


@pytest.mark.parametrize("error", [None, KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)])
def test_a_topic_that_was_just_created_is_asked_for_again(error):
    assert partition_count(Admin(error), "new") == 2
    with pytest.raises(KafkaUnavailableError, match="expected topic none, was not there"):
        partition_count(Admin(error), "none")
