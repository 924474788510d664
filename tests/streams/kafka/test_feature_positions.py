"""From times to offsets, on the real broker: numbers, also where nothing is that new."""

import time

import pytest
from confluent_kafka import Producer

from schemas.settings import load_settings
from schemas.topics import TopicSpec
from streams.kafka.admin import ensure_topics
from streams.kafka.clients import reader
from streams.kafka.feature_positions import offsets_since, watermarks

pytestmark = pytest.mark.kafka

HOUR_MS = 3_600_000
T0_MS = 1_700_000_000_000


@pytest.fixture
def consumer(kafka_bootstrap, unique):
    """A reader of a topic with a record an hour in partition 0, and none in partition 1."""
    settings = load_settings(kafka={"bootstrap_servers": kafka_bootstrap, "partitions": 2})
    ensure_topics(settings, [TopicSpec(unique, "", "", "features")])
    producer = Producer(settings.kafka.as_librdkafka() | {"transactional.id": unique})
    producer.init_transactions(30)
    producer.begin_transaction()
    for hour in range(5):
        producer.produce(unique, b"x", partition=0, timestamp=T0_MS + hour * HOUR_MS)
    producer.commit_transaction(30)
    made = reader(settings, unique)
    deadline = time.monotonic() + 20
    # Five records and the mark behind them.
    while watermarks(made, unique, [0])[0] != (0, 6):
        assert time.monotonic() < deadline
    yield made
    made.close()


def since(consumer, topic: str, time_ms: int) -> dict[int, int]:
    marks = watermarks(consumer, topic, [0, 1])
    return offsets_since(consumer, topic, marks, time_ms * 1_000_000)


@pytest.mark.parametrize("hour", range(5))
def test_records_up_to_an_hour_older_than_the_time_belong_to_it(consumer, unique, hour):
    assert since(consumer, unique, T0_MS + hour * HOUR_MS)[0] == max(hour - 1, 0)


def test_a_time_before_every_record_is_the_start(consumer, unique):
    assert since(consumer, unique, -HOUR_MS)[0] == since(consumer, unique, 0)[0] == 0


def test_a_time_after_every_record_is_the_end_and_not_the_start(consumer, unique):
    # The mark at the transaction's end has the time of the broker.
    tomorrow_ms = int(time.time() * 1000) + 24 * HOUR_MS
    assert since(consumer, unique, tomorrow_ms) == {0: 6, 1: 0}


def test_a_partition_without_records_begins_where_it_ends(consumer, unique):
    assert since(consumer, unique, T0_MS)[1] == 0
