"""Topics: created from the catalogue, described, never auto-created."""

import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.settings import Settings
from schemas.topics import TopicSpec
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import KafkaUnavailableError, kafka_error

# Until every broker knows of a new topic.
_JUST_CREATED_S = 1.0
_URL_SAFE = str.maketrans("+/", "-_")


def admin_client(settings: Settings, timeout_s: float = 10.0) -> AdminClient:
    """Returns an admin client of a broker that answers.

    Args:
        settings: Where Kafka is.
        timeout_s: Longest wait for the first answer.

    Raises:
        KafkaUnavailableError: No broker answered in time.
    """
    admin = AdminClient(settings.kafka.as_librdkafka() | {"log_level": 0})
    try:
        admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected a Kafka broker, none answered within {timeout_s:g} s "
            f"({settings.kafka.bootstrap_servers}: {kafka_error(error).str()}); start one with "
            "`mystocks up` or correct MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS"
        ) from error
    return admin


def ensure_topics(settings: Settings, specs: Sequence[TopicSpec]) -> list[str]:
    """Creates the topics that do not exist yet; existing ones stay as they are.

    Args:
        settings: Where Kafka is, and the replication factor.
        specs: Topics with their names filled in.

    Returns:
        Names of the created topics.

    Raises:
        KafkaUnavailableError: No broker answered, or a topic could not be created.
    """
    admin = admin_client(settings)
    existing = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    missing = [
        NewTopic(
            spec.name,
            num_partitions=spec.partitions or settings.kafka.partitions,
            replication_factor=settings.kafka.replication_factor,
            config=dict(spec.config),
        )
        for spec in specs
        if spec.name not in existing
    ]
    if not missing:
        return []
    created = []
    for name, future in admin.create_topics(missing, operation_timeout=CALL_TIMEOUT_S).items():
        try:
            future.result(CALL_TIMEOUT_S)
            created.append(name)
        except KafkaException as error:
            if kafka_error(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise KafkaUnavailableError(
                    f"expected topic {name} to be created, was refused "
                    f"({kafka_error(error).str()}); create it by hand or correct the settings"
                ) from error
    await_metadata(admin, created)
    return created


def await_metadata(admin: AdminClient, names: Sequence[str]) -> None:
    """Waits until new topics are visible, since creation is acknowledged a moment earlier."""
    deadline = time.monotonic() + CALL_TIMEOUT_S
    waiting = set(names)
    while waiting and time.monotonic() < deadline:
        topics = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
        waiting -= {
            name
            for name in waiting
            if name in topics
            and topics[name].error is None
            and all(part.leader >= 0 for part in topics[name].partitions.values())
        }
        if waiting:
            time.sleep(0.02)


def await_topics(settings: Settings, names: Sequence[str], timeout_s: float) -> None:
    """Waits until a broker answers and has these topics.

    Args:
        settings: Where Kafka is.
        names: Topics that somebody else creates.
        timeout_s: Longest wait.

    Raises:
        KafkaUnavailableError: No broker answered in time, or a topic is still missing.
    """
    deadline = time.monotonic() + timeout_s
    admin = admin_client(settings, timeout_s)
    while True:
        missing = sorted(set(names) - set(admin.list_topics(timeout=CALL_TIMEOUT_S).topics))
        if not missing:
            return
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(
                f"expected the topics {', '.join(missing)}, were not there; create them with "
                "`mystocks topics apply`"
            )
        time.sleep(0.05)


def partition_count(admin: AdminClient, topic: str) -> int:
    """Returns how many partitions a topic has.

    Raises:
        KafkaUnavailableError: The topic does not exist.
    """
    deadline = time.monotonic() + _JUST_CREATED_S
    while True:
        found = admin.list_topics(topic, timeout=CALL_TIMEOUT_S).topics.get(topic)
        if found is not None and found.error is None:
            return len(found.partitions)
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(
                f"expected topic {topic}, was not there; create it with `mystocks topics apply`"
            )
        time.sleep(0.05)


def partition_counts(admin: AdminClient) -> dict[str, int]:
    """Returns how many partitions every topic has."""
    topics = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None}


def topic_id(admin: AdminClient, topic: str) -> str:
    """Returns the id that Kafka gave a topic when it was created.

    A topic that is deleted and created again has another one.
    """
    future = admin.describe_topics(TopicCollection([topic]))[topic]
    return id_text(future.result(CALL_TIMEOUT_S).topic_id)


def id_text(uuid: object) -> str:
    """Returns an id as Kafka's tools write it, in letters that may stand in a file name.

    Args:
        uuid: A `confluent_kafka.Uuid`, whose own text may have slashes in it.
    """
    return str(uuid).translate(_URL_SAFE)
