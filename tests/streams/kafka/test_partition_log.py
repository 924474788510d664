"""Reading a partition from its first record to its end at the call."""

import time

import pytest
from confluent_kafka import Producer

from schemas.settings import load_settings
from schemas.topics import TopicSpec
from streams.kafka.admin import ensure_topics
from streams.kafka.clients import reader
from streams.kafka.errors import KafkaUnavailableError
from streams.kafka.partition_log import PartitionLog

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka_bootstrap):
    return load_settings(kafka={"bootstrap_servers": kafka_bootstrap, "partitions": 2})


@pytest.fixture
def log(settings, unique):
    ensure_topics(settings, [TopicSpec(unique, "", "", "features")])
    made = PartitionLog(reader(settings, unique), unique)
    yield made
    made.close()


def write(settings, topic, values, partition=0, *, commit=True, name="writer") -> None:
    producer = Producer(settings.kafka.as_librdkafka() | {"transactional.id": f"{topic}.{name}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=partition)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def read(log, count, partition=0) -> list[bytes]:
    """Reads until there are so many: a commit ends a moment before readers see it."""
    deadline = time.monotonic() + 20
    while True:
        batches = log.batches(partition, lambda: 30.0)
        values = [value for batch in batches for value in batch.values]
        if len(values) >= count or time.monotonic() > deadline:
            return values
        time.sleep(0.02)


def test_committed_records_are_read_in_order_and_the_end_is_found(log, settings, unique):
    assert log.partitions() == 2
    assert read(log, 0) == []
    values = [b"%d" % i for i in range(25_000)]
    write(settings, unique, values)
    assert read(log, 25_000) == values
    # The log ends with records that are none: those of an aborted transaction, and its marker.
    write(settings, unique, [b"aborted"] * 10, commit=False)
    write(settings, unique, [b"elsewhere"], 1)
    assert read(log, 25_000) == values
    assert read(log, 1, 1) == [b"elsewhere"]
    write(settings, unique, [b"more"])
    assert read(log, 25_001) == [*values, b"more"]


def test_an_open_transaction_is_not_waited_for(log, settings, unique):
    write(settings, unique, [b"one"])
    producer = Producer(settings.kafka.as_librdkafka() | {"transactional.id": f"{unique}.open"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(unique, b"two", partition=0)
    producer.flush(30)
    assert read(log, 1) == [b"one"]
    producer.commit_transaction(30)
    assert read(log, 2) == [b"one", b"two"]


def test_a_caller_that_does_not_wait_any_more_ends_the_reading(log, settings, unique):
    write(settings, unique, [b"one"] * 20_000)
    assert len(read(log, 20_000)) == 20_000
    left = iter([30.0, 30.0])
    with pytest.raises(KafkaUnavailableError, match="up to offset"):
        list(log.batches(0, lambda: next(left, 0.0)))
    assert len(read(log, 20_000)) == 20_000


def test_a_topic_that_is_not_there_has_no_partitions(settings, unique):
    log = PartitionLog(reader(settings, unique), f"{unique}.none")
    assert log.partitions() == 0
    log.close()
