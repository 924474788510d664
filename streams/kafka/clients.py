"""Configuration of the librdkafka clients, each value with its reason."""

import contextlib
import logging
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from schemas.settings import Settings
from schemas.topics import DEAD_LETTER_EXTRA_BYTES, MAX_MESSAGE_BYTES
from streams.kafka.ports import GroupConsumer

# librdkafka writes its own log lines through this logger, not to stderr.
LIBRDKAFKA_LOG = logging.getLogger("librdkafka")

# A broker that answers at all answers within this; used for calls that block the loop.
CALL_TIMEOUT_S = 30.0
# Longer than a broker that is well takes to say where a partition ends.
_WAKE_UP_S = 0.05


def consumer_config(settings: Settings) -> dict[str, Any]:
    """Returns what all consumers of this project share: committed records, explicit positions."""
    return {
        **settings.kafka.as_librdkafka(),
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Positions are always set as numbers; a missing one is an error to act on, never a jump.
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        # The default of one second lets the consumer starve after a full local queue.
        "fetch.queue.backoff.ms": 5,
        # A fetch that finds nothing is answered when something comes; this bounds how long a newly
        # assigned partition waits for one that is out. Shorter keeps an idle broker busy.
        "fetch.wait.max.ms": 50,
        "max.partition.fetch.bytes": 4 * 1024**2,
        # The memory bound of prefetched messages.
        "queued.min.messages": 1_000_000,
        "queued.max.messages.kbytes": 64 * 1024,
    }


def group_consumer(
    settings: Settings, group: str, instance: str, *, reports_ends: bool = False, **callbacks: Any
) -> Consumer:
    """Returns a consumer that takes part in a group as a static member.

    Args:
        settings: Where Kafka is.
        group: Consumer group.
        instance: `group.instance.id`; a restart under the same one moves no partition.
        reports_ends: Whether it says so when it comes to the end of a partition.
        **callbacks: librdkafka callbacks such as `stats_cb`.
    """
    config = settings.kafka
    if config.group_protocol == "consumer":
        # The broker decides about sessions and who gets what.
        membership: dict[str, Any] = {"group.protocol": "consumer"}
    else:
        membership = {
            "partition.assignment.strategy": "range",
            # A dead process is noticed after this; a restart within it moves no partition.
            "session.timeout.ms": config.session_timeout_ms,
            # Bounds how late a member learns of a rebalance.
            "heartbeat.interval.ms": min(500, config.session_timeout_ms // 3),
        }
    return Consumer(
        {
            **consumer_config(settings),
            "group.id": group,
            "group.instance.id": instance,
            "enable.partition.eof": reports_ends,
            "max.poll.interval.ms": max(config.max_poll_interval_ms, config.session_timeout_ms),
            **membership,
            **callbacks,
        },
        logger=LIBRDKAFKA_LOG,
    )


def reader(
    settings: Settings, name: str, *, check_crcs: bool = False, buffer_bytes: int | None = None
) -> Consumer:
    """Returns a consumer outside any group that reports the end of a partition.

    Args:
        settings: Where Kafka is.
        name: Shown in the broker's logs; no offsets are ever committed under it.
        check_crcs: Whether every batch is compared with its checksum.
        buffer_bytes: Bound of what is read ahead; None is the usual one.
    """
    config = {
        **consumer_config(settings),
        "group.id": f"{name}.reader",
        "enable.partition.eof": True,
        "queued.min.messages": 100_000,
        "check.crcs": check_crcs,
    }
    if buffer_bytes is not None:
        config["queued.max.messages.kbytes"] = max(1, buffer_bytes // 1024)
    return Consumer(config, logger=LIBRDKAFKA_LOG)


def resume_at_once(consumer: GroupConsumer | Consumer, places: list[TopicPartition]) -> None:
    """Resumes paused partitions without the wait that librdkafka has for them.

    Where nothing is being fetched its thread for a broker sleeps for up to a second. A question to
    the leader of a partition wakes it; the answer does not matter.
    """
    consumer.resume(places)
    for place in places:
        with contextlib.suppress(KafkaException):
            consumer.get_watermark_offsets(place, _WAKE_UP_S)


def offsets_client(settings: Settings, group: str) -> Consumer:
    """Returns a client that reads and names a group's offsets and takes no part in it."""
    return Consumer({**consumer_config(settings), "group.id": group}, logger=LIBRDKAFKA_LOG)


def producer(
    settings: Settings,
    *,
    transactional_id: str | None = None,
    transaction_timeout_ms: int = 10_000,
    delivery_timeout_s: float | None = None,
) -> Producer:
    """Returns an idempotent producer for large blocks.

    Args:
        settings: Where Kafka is.
        transactional_id: Makes it transactional.
        transaction_timeout_ms: After this the broker aborts a transaction left open.
        delivery_timeout_s: A record that the broker has not taken for this long has failed; None
            keeps librdkafka's five minutes.
    """
    config: dict[str, Any] = {
        **settings.kafka.as_librdkafka(),
        "enable.idempotence": True,
        "acks": "all",
        # Blocks are batches already; waiting for more only adds latency.
        "linger.ms": 0,
        "batch.size": 1024**2,
        "queue.buffering.max.kbytes": 256 * 1024,
        # A dead letter holds a record of the largest size and more headers than it had.
        "message.max.bytes": MAX_MESSAGE_BYTES + DEAD_LETTER_EXTRA_BYTES,
        # After a commit the next transaction often meets CONCURRENT_TRANSACTIONS; the default
        # back-off of 100 ms would be the latency of every second batch.
        "retry.backoff.ms": 2,
        "retry.backoff.max.ms": 50,
    }
    if transactional_id is not None:
        config["transactional.id"] = transactional_id
        config["transaction.timeout.ms"] = transaction_timeout_ms
    if delivery_timeout_s is not None:
        timeout_ms = int(delivery_timeout_s * 1000)
        config["message.timeout.ms"] = timeout_ms
        # A broker that is there and does not answer is given up as fast.
        config["request.timeout.ms"] = config["socket.timeout.ms"] = timeout_ms
    return Producer(config, logger=LIBRDKAFKA_LOG)
