"""Ends of partitions, while a broker comes back."""

import time

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.kafka.ends import first_and_end

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
