"""Ends of partitions, also while a broker comes back."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from schemas.settings import load_settings
from streams.kafka.admin import admin_client, await_metadata
from streams.kafka.clients import group_consumer, producer, reader
from streams.kafka.ends import BackgroundLogEnds, first_and_end

PLACE = TopicPartition("ticks", 0)


class ForgetfulConsumer:
    """As librdkafka: what it was told without a leader stays until it asks for the topic again."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.asked = 0

    def get_watermark_offsets(self, _place, _timeout):
        if self.errors:
            code = self.errors[0]
            if code != KafkaError._UNKNOWN_PARTITION:
                self.errors.pop(0)
            raise KafkaException(KafkaError(code))
        return 3, 7

    def list_topics(self, topic, timeout):
        assert topic == "ticks"
        assert timeout > 0
        self.asked += 1
        if self.errors:
            self.errors.pop(0)
        if self.asked == 1:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


def test_what_the_client_noted_without_a_leader_is_asked_for_again():
    consumer = ForgetfulConsumer(KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_PARTITION)
    assert first_and_end(consumer, PLACE, 10.0) == (3, 7)
    assert consumer.asked == 2


def test_a_broker_that_comes_back_is_waited_for():
    consumer = ForgetfulConsumer(
        KafkaError._TRANSPORT, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE
    )
    assert first_and_end(consumer, PLACE, 10.0) == (3, 7)
    assert not consumer.asked


def test_a_refusal_is_not_waited_for():
    consumer = ForgetfulConsumer(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    began = time.monotonic()
    with pytest.raises(KafkaException):
        first_and_end(consumer, PLACE, 10.0)
    assert time.monotonic() - began < 5.0


def test_an_end_to_patience():
    consumer = ForgetfulConsumer(*[KafkaError.LEADER_NOT_AVAILABLE] * 10_000)
    with pytest.raises(KafkaException):
        first_and_end(consumer, PLACE, 0.2)


def written(kafka: str, topic: str, **committed: bool) -> None:
    """Writes two records into partition 0 of a new topic, in one transaction each."""
    settings = load_settings(kafka={"bootstrap_servers": kafka})
    admin = admin_client(settings)
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
    await_metadata(admin, [topic])
    for name, commits in committed.items():
        out = producer(settings, transactional_id=f"{topic}.{name}")
        out.init_transactions(30)
        out.begin_transaction()
        out.produce(topic, b"tick", partition=0)
        out.flush(30)
        if commits:
            out.commit_transaction(30)


def said(ends: BackgroundLogEnds) -> dict[int, int]:
    deadline = time.monotonic() + 30
    while (answer := ends.answer()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer


@pytest.mark.kafka
def test_a_consumer_that_has_seen_the_end_stands_where_the_log_is_said_to_end(
    kafka_bootstrap, unique
):
    """Behind the transaction's marker, and before what is not committed."""
    settings, topic = load_settings(kafka={"bootstrap_servers": kafka_bootstrap}), f"{unique}.ticks"
    written(kafka_bootstrap, topic, first=True, second=False)
    ends = BackgroundLogEnds(reader(settings, unique), topic)
    assert said(ends) == {}
    ends.ask([0, 1])
    assert said(ends) == {0: 2, 1: 0}
    consumer = group_consumer(settings, f"{unique}.g", "one", reports_ends=True)
    consumer.assign([TopicPartition(topic, number, 0) for number in (0, 1)])
    seen: dict[int, int] = {}
    deadline = time.monotonic() + 30
    while len(seen) < 2 and time.monotonic() < deadline:
        for message in consumer.consume(10, 0.1):
            if message.error() is not None and message.error().code() == KafkaError._PARTITION_EOF:
                seen[message.partition()] = message.offset()
    consumer.close()
    assert seen == {0: 2, 1: 0}


def test_partitions_whose_broker_does_not_say_are_missing(unique):
    away = load_settings(kafka={"bootstrap_servers": "127.0.0.1:1"})
    ends = BackgroundLogEnds(reader(away, unique), unique)
    ends.ask([0, 1])
    assert ends.answer() is None
    assert said(ends) == {}
