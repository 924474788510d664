"""Configuration of the clients of Kafka that requests and replies need."""

import logging
from typing import Any

from confluent_kafka import Consumer, Producer

from schemas.settings import Settings
from schemas.topics import MAX_MESSAGE_BYTES
from streams.kafka.clients import consumer_config

_LIBRDKAFKA_LOG = logging.getLogger("librdkafka")

_CONSUMER: dict[str, Any] = {
    # The broker answers as soon as there is a record; this is only how long it waits for one.
    "fetch.wait.max.ms": 500,
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 32 * 1024,
}


def worker_consumer(settings: Settings, group: str, instance: str) -> Consumer:
    """Returns a member of the group that answers requests.

    Args:
        settings: Where Kafka is.
        group: Consumer group.
        instance: `group.instance.id`; a restart under the same one takes its partitions at once.
    """
    return Consumer(
        {
            **consumer_config(settings),
            **_CONSUMER,
            "group.id": group,
            "group.instance.id": instance,
            # A rebalance stops only the partitions that move.
            "partition.assignment.strategy": "cooperative-sticky",
            # The least that brokers allow by default: after this the requests of a dead worker go
            # to another one.
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 500,
            "max.poll.interval.ms": 60_000,
            # A group's first worker finds requests that are older than itself; those past their
            # deadline are passed over.
            "auto.offset.reset": "earliest",
        },
        logger=_LIBRDKAFKA_LOG,
    )


def reply_consumer(settings: Settings, requester: str) -> Consumer:
    """Returns a consumer of one partition of replies, in no group.

    Args:
        settings: Where Kafka is.
        requester: Shown in the broker's logs.
    """
    return Consumer(
        {**consumer_config(settings), **_CONSUMER, "group.id": f"{requester}.replies"},
        logger=_LIBRDKAFKA_LOG,
    )


def message_producer(settings: Settings, timeout_s: float) -> Producer:
    """Returns a producer of single messages that somebody waits for.

    It is not idempotent: a message twice is passed over by whoever gets it, and there is no state
    that could make it fail for good.

    Args:
        settings: Where Kafka is.
        timeout_s: After this nobody waits any more.
    """
    return Producer(
        {
            **settings.kafka.as_librdkafka(),
            "acks": "all",
            # What comes while a call of the broker is under way goes with the next one: as many
            # messages as there are, a third less work for the broker, and no wait when it is idle.
            "linger.ms": 0.5,
            "max.in.flight.requests.per.connection": 1,
            "message.timeout.ms": int(timeout_s * 1000),
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "queue.buffering.max.kbytes": 128 * 1024,
            "retry.backoff.ms": 5,
            "retry.backoff.max.ms": 100,
        },
        logger=_LIBRDKAFKA_LOG,
    )
