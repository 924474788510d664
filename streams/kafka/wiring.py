"""Puts the micro-batch loop together from settings."""

from collections.abc import Callable, Sequence

from schemas.settings import Settings
from schemas.topics import dead_letter_topic, features_topic, state_topic
from streams.kafka.admin import admin_client, partition_count, topic_id
from streams.kafka.assignment import Assignment
from streams.kafka.clients import group_consumer, producer, reader
from streams.kafka.loop import LoopSettings, MicroBatchLoop
from streams.kafka.output import AtLeastOnceOutput, ExactlyOnceOutput, Output
from streams.kafka.ports import PartitionTask, Table
from streams.kafka.restore import Restorer
from streams.metrics import LoopMetrics
from streams.tables.feature_table import FeatureTable, NoTable, TableNames, connect


def feature_loop(
    settings: Settings,
    *,
    identity: str,
    set_hash: str,
    columns: Sequence[str],
    backend: str,
    new_task: Callable[[int, int], PartitionTask],
    metrics: LoopMetrics,
) -> MicroBatchLoop:
    """Returns the loop of a feature set.

    Args:
        settings: Servers, topics and guarantees.
        identity: Transactional id and instance id of this process.
        set_hash: Identity of the computation.
        columns: Names of the features.
        backend: Where they are computed.
        new_task: Makes the task of a partition, given its number and how many there are.
        metrics: Of this process.

    Raises:
        KafkaUnavailableError: No broker answered, or a topic is missing.
    """
    config, group = settings.features, settings.features_group
    output_topic, source = features_topic(config.name), config.source_topic
    admin = admin_client(settings)
    partitions = partition_count(admin, source)
    consumer = group_consumer(settings, group, identity)
    output: Output
    if config.guarantee == "exactly_once":
        output = ExactlyOnceOutput(
            producer(
                settings,
                transactional_id=identity,
                transaction_timeout_ms=config.transaction_timeout_ms,
            )
        )
    else:
        output = AtLeastOnceOutput(
            producer(settings),
            lambda offsets: consumer.commit(offsets=list(offsets), asynchronous=False),
        )
    table: Table = NoTable()
    if settings.redis.url is not None:
        table = FeatureTable(
            connect(settings.redis),
            TableNames.of(config.name),
            columns=columns,
            topic_id=topic_id(admin, output_topic),
            metrics=metrics,
        )
    assignment = Assignment(
        source,
        set_hash,
        consumer=consumer,
        restorer=Restorer(
            reader(settings, identity),
            source=source,
            output=output_topic,
            state=state_topic(group),
            partitions=partitions,
            set_hash=set_hash,
            policy=config.on_unrestorable,
        ),
        new_task=lambda partition: new_task(partition, partitions),
        metrics=metrics,
        incremental=settings.kafka.group_protocol == "consumer",
    )
    return MicroBatchLoop(
        LoopSettings(
            source=source,
            output=output_topic,
            dead_letter=dead_letter_topic(source),
            state=state_topic(group),
            group=group,
            partitions=partitions,
            set_hash=set_hash,
            backend=backend,
            commit_interval_s=config.commit_interval_ms / 1000,
            max_batch_bytes=config.max_batch_bytes,
        ),
        consumer=consumer,
        output=output,
        assignment=assignment,
        table=table,
        metrics=metrics,
    )
