"""Connects the parts of a worker to Kafka."""

from prometheus_client import CollectorRegistry

from schemas.settings import Settings
from schemas.topics import MAX_MESSAGE_BYTES
from streams.kafka.admin import admin_client, partition_count
from streams.requests.clients import message_producer, worker_consumer
from streams.requests.handler import Question, RequestHandler
from streams.requests.loop import RequestLoop
from streams.requests.metrics import RequestMetrics
from streams.requests.topics import RequestTopics

# Nobody waits longer for a reply, unless a request says so.
_REPLY_TIMEOUT_S = 60.0


def request_loop(
    settings: Settings,
    topics: RequestTopics,
    handler: RequestHandler[Question],
    *,
    identity: str,
    registry: CollectorRegistry,
) -> RequestLoop[Question]:
    """Returns the loop of a worker.

    Args:
        settings: Where Kafka is.
        topics: Where requests come from and replies go.
        handler: Computes the replies.
        identity: Instance id, unique among the members of the group.
        registry: Of this process's metrics.

    Raises:
        KafkaUnavailableError: No broker answered, or a topic is missing.
    """
    admin = admin_client(settings)
    partition_count(admin, topics.requests)
    return RequestLoop(
        topics,
        handler,
        consumer=worker_consumer(settings, topics.group, identity),
        producer=message_producer(settings, _REPLY_TIMEOUT_S),
        reply_partitions=partition_count(admin, topics.replies),
        most_bytes=MAX_MESSAGE_BYTES,
        metrics=RequestMetrics(registry, topics.kind),
    )
