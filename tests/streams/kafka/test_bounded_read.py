"""Reading partitions from an offset to their end at the call."""

import time
from random import Random

import pytest
from confluent_kafka import Producer

from schemas.settings import load_settings
from schemas.topics import TopicSpec
from streams.kafka.admin import ensure_topics
from streams.kafka.bounded_read import TopicReader
from streams.kafka.errors import KafkaUnavailableError

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka_bootstrap):
    return load_settings(kafka={"bootstrap_servers": kafka_bootstrap, "partitions": 2})


@pytest.fixture
def log(settings, unique):
    ensure_topics(settings, [TopicSpec(unique, "", "", "features")])
    made = TopicReader(settings, unique, unique)
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
        batches = log.batches(partition, remaining_s=lambda: 30.0)
        values = [value for batch in batches for value in batch.values]
        if len(values) >= count or time.monotonic() > deadline:
            return values
        time.sleep(0.02)


def test_committed_records_are_read_in_order_and_the_end_is_found(log, settings, unique):
    assert log.partition_count() == 2
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
        list(log.batches(0, remaining_s=lambda: next(left, 0.0)))
    assert len(read(log, 20_000)) == 20_000


def test_a_topic_that_is_not_there_has_no_partitions(settings, unique):
    with TopicReader(settings, f"{unique}.none", unique) as log:
        assert log.partition_count() == 0
        with pytest.raises(KafkaUnavailableError, match="topics apply"):
            _ = log.partitions


def test_several_partitions_are_read_at_once_within_their_ranges(log, settings, unique):
    write(settings, unique, [b"%d" % i for i in range(3000)])
    write(settings, unique, [b"%d" % i for i in range(100)], 1)
    assert len(read(log, 3000)) == 3000
    assert len(read(log, 100, 1)) == 100
    found = {0: [], 1: []}
    for batch in log.ranges({0: (10, 2990), 1: (99, 100)}):
        found[batch.partition] += batch.values
    assert found == {0: [b"%d" % i for i in range(10, 2990)], 1: [b"99"]}
    assert list(log.ranges({0: (5, 5)})) == []


def test_a_fork_reads_another_place_in_turn(log, settings, unique):
    write(settings, unique, [b"%d" % i for i in range(2000)])
    assert len(read(log, 2000)) == 2000
    pairs = zip(log.read(0, 0, 500), log.fork().read(0, 1000, 1500), strict=True)
    assert all(int(b.value()) - int(a.value()) == 1000 for a, b in pairs)


def test_any_ranges_can_be_read_one_after_the_other(log, settings, unique):
    """A partition that was done before the other ones is read again like any."""
    for partition in range(2):
        write(settings, unique, [b"%d" % i * 500 for i in range(50)], partition)
        assert len(read(log, 50, partition)) == 50
    random = Random(1)
    for _ in range(30):
        wanted = {
            partition: tuple(sorted(random.sample(range(51), 2)))
            for partition in random.sample(range(2), random.randint(1, 2))
        }
        found = {partition: [] for partition in wanted}
        for batch in log.ranges(wanted):
            found[batch.partition] += batch.offsets.tolist()
        assert found == {partition: list(range(*ends)) for partition, ends in wanted.items()}
