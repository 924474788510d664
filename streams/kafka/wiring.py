"""Puts the micro-batch loop together from settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.bars_settings import BarsSettings
from schemas.settings import FeatureSettings, Settings
from schemas.topics import (
    bars_source,
    bars_topic,
    dead_letter_topic,
    features_topic,
    late_topic,
    state_archive_topic,
    state_topic,
)
from streams.kafka import message_memory
from streams.kafka.admin import (
    admin_client,
    await_topics,
    partition_count,
    partition_counts,
    topic_id,
)
from streams.kafka.archive_writer import ArchiveWriter
from streams.kafka.assignment import Assignment
from streams.kafka.clients import group_consumer, producer, reader
from streams.kafka.ends import BackgroundLogEnds
from streams.kafka.errors import PartitionCountError
from streams.kafka.loop import MicroBatchLoop
from streams.kafka.loop_settings import LoopSettings
from streams.kafka.output import AtLeastOnceOutput, ExactlyOnceOutput, GroupOutput
from streams.kafka.partition_clock import PartitionClock
from streams.kafka.ports import PartitionTask, Table
from streams.kafka.restore import Restorer, start_anew
from streams.metrics import LoopMetrics
from streams.tables.feature_table import FeatureTable, NoTable, TableNames, connect

# A stack that is being started creates the topics after the roles were launched.
_TOPICS_TIMEOUT_S = 30.0


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
        PartitionCountError: A topic written to has fewer partitions than the source.
    """
    config, group = settings.features, settings.features_group
    output, source = features_topic(config.name), config.source_topic
    partitions = partition_count(admin_client(settings), source)
    table: Table = NoTable()
    if settings.redis.url is not None:
        table = FeatureTable(
            connect(settings.redis),
            TableNames.of(config.name),
            columns=columns,
            topic_id=topic_id(admin_client(settings), output),
            metrics=metrics,
        )
    names = _Names("features", config, source, [output], group, identity, set_hash, backend)
    return _loop(settings, names, partitions, new_task, table, metrics)


def bars_loop(
    settings: Settings,
    *,
    identity: str,
    set_hash: str,
    new_task: Callable[[int, int], PartitionTask],
    metrics: LoopMetrics,
) -> MicroBatchLoop:
    """Returns the loop of the `bars` role.

    Args:
        settings: Servers, topics and guarantees.
        identity: Transactional id and instance id of this process.
        set_hash: Identity of the computation.
        new_task: Makes the task of a partition, given its number and how many there are.
        metrics: Of this process.

    Raises:
        KafkaUnavailableError: No broker answered, or a topic is missing.
        PartitionCountError: A topic written to has fewer partitions than the source.
    """
    config, group, source = settings.bars, settings.bars_group, bars_source(settings)
    topics = [bars_topic(interval) for interval in config.intervals]
    await_topics(settings, [source, *topics, state_topic(group)], _TOPICS_TIMEOUT_S)
    partitions = partition_count(admin_client(settings), source)
    names = _Names("bars", config, source, topics, group, identity, set_hash, "cpu")
    return _loop(settings, names, partitions, new_task, NoTable(), metrics)


@dataclass(frozen=True)
class _Names:
    section: str
    config: FeatureSettings | BarsSettings
    source: str
    outputs: list[str]
    group: str
    identity: str
    set_hash: str
    backend: str


def _loop(
    settings: Settings,
    names: _Names,
    partitions: int,
    new_task: Callable[[int, int], PartitionTask],
    table: Table,
    metrics: LoopMetrics,
) -> MicroBatchLoop:
    config, state = names.config, state_topic(names.group)
    message_memory.prepare(allowed=settings.kafka.fast_consumer == "auto")
    counts = partition_counts(admin_client(settings))
    archive_topic = state_archive_topic(names.group)
    letters = [dead_letter_topic(names.source), late_topic(names.source)]
    for topic in [*names.outputs, *letters, state, archive_topic]:
        # Each partition of the source has its records in the same one of what is written to.
        if counts.get(topic, partitions) < partitions:
            raise PartitionCountError(
                f"expected {topic} to have {partitions} partitions as {names.source}, has "
                f"{counts[topic]}. If {names.source} was enlarged, symbols have moved; with "
                f"MYSTOCKS_KAFKA__PARTITIONS={partitions} start {start_anew(names.section)}"
            )
    by_clock = names.section == "bars"
    consumer = group_consumer(settings, names.group, names.identity, reports_ends=by_clock)
    output: GroupOutput
    if config.guarantee == "exactly_once":
        output = ExactlyOnceOutput(
            producer(
                settings,
                transactional_id=names.identity,
                transaction_timeout_ms=config.transaction_timeout_ms,
            ),
            timeout_s=config.transaction_timeout_ms / 1000,
        )
    else:
        output = AtLeastOnceOutput(
            producer(settings),
            lambda offsets, asynchronous: consumer.commit(
                offsets=list(offsets), asynchronous=asynchronous
            ),
        )
    assignment = Assignment(
        names.source,
        names.set_hash,
        consumer=consumer,
        restorer=Restorer(
            reader(settings, names.identity),
            source=names.source,
            output=names.outputs[0],
            state=state,
            partitions=partitions,
            set_hash=names.set_hash,
            policy=config.on_unrestorable,
            # A topic of bars may have back-filled ones before the role has ever run.
            rows_before_commits=config.guarantee == "at_least_once" or names.section == "bars",
            section=names.section,
            group=names.group,
        ),
        new_task=lambda partition: new_task(partition, partitions),
        metrics=metrics,
        incremental=settings.kafka.group_protocol == "consumer",
    )
    archive = None
    kept = names.section == "features" and settings.features.archive_state
    # A stack of an earlier version has no such topic until `mystocks topics apply`.
    if kept and archive_topic in counts:
        archive = ArchiveWriter(
            reader(settings, f"{names.identity}.archive"), archive_topic, names.set_hash, partitions
        )
    partition_clock = None
    if by_clock:
        asking = reader(settings, f"{names.identity}.ends")
        partition_clock = PartitionClock(BackgroundLogEnds(asking, names.source))
    return MicroBatchLoop(
        LoopSettings(
            section=names.section,
            source=names.source,
            output=names.outputs[0],
            dead_letter=dead_letter_topic(names.source),
            late=late_topic(names.source),
            state=state,
            group=names.group,
            partitions=partitions,
            set_hash=names.set_hash,
            backend=names.backend,
            commit_interval_s=config.commit_interval_ms / 1000,
            max_batch_bytes=config.max_batch_bytes,
        ),
        consumer=consumer,
        output=output,
        assignment=assignment,
        table=table,
        metrics=metrics,
        archive=archive,
        partition_clock=partition_clock,
    )
