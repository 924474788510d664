"""What is asked of the cluster."""

from pathlib import Path

import pytest
from confluent_kafka import Uuid
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.admin import id_text
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
