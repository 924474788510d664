"""Puts a replay together from settings: topics, plan, state, transactions."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.topics import TopicSpec, market_data_config, state_archive_topic
from streams.kafka import message_memory
from streams.kafka.admin import (
    admin_client,
    ensure_topics,
    partition_count,
    partition_counts,
    topic_id,
)
from streams.kafka.archive import ArchivedState
from streams.kafka.clients import (
    CALL_TIMEOUT_S,
    offsets_client,
    producer,
    reader,
)
from streams.kafka.ends import first_and_end
from streams.kafka.errors import (
    FencedError,
    KafkaUnavailableError,
    OutputFailedError,
    TransactionAbortedError,
    kafka_error,
)
from streams.kafka.output import ExactlyOnceOutput
from streams.kafka.replay.clock import EventClock
from streams.kafka.replay.control import ReplayControl
from streams.kafka.replay.driver import (
    Outcome,
    ReplayDriver,
    ReplayProgress,
    ReplayTopics,
)
from streams.kafka.replay.lane import Lane
from streams.kafka.replay.plan import PartitionPlan, check_same, committed_plan, offsets_of
from streams.kafka.replay.planner import LiveSet, Planner
from streams.kafka.replay.ports import ReplayTask
from streams.kafka.replay.reader import LogReader

# Of messages that are read ahead.
_BUFFER_BYTES = 64 * 1024**2
# A broker that cannot commit for this many attempts in a row will not do so by itself.
_MOST_ABORTS_IN_A_ROW = 5

Task = TypeVar("Task", bound=ReplayTask)


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """One run.

    Attributes:
        run: Its id.
        request: Hash of what is replayed.
        start_ns: Event time of the first row, nanoseconds since 1970 (UTC).
        end_ns: Event time before which the last row is; None is the end of the log.
        cold: Whether to begin with empty state.
        topics: What is read and written.
        live: Whose rows it computes.
    """

    run: str
    request: str
    start_ns: int
    end_ns: int | None
    cold: bool
    topics: ReplayTopics
    live: LiveSet


def run_replay(
    settings: Settings,
    run: ReplayRun,
    new_task: Callable[[int, int], ReplayTask],
    new_clock: Callable[[], EventClock],
    control: ReplayControl,
    on_progress: Callable[[ReplayProgress], None],
) -> Outcome:
    """Runs a replay from where it stands to its end.

    Args:
        settings: Servers, and the live feature set.
        run: What to replay.
        new_task: Makes the task of a partition, given its number and how many there are.
        new_clock: Makes the clock.
        control: How others pause and end it.
        on_progress: Told how far it is.

    Raises:
        RequestFailedError: It cannot be run as things are.
        KafkaUnavailableError: The broker does not answer.
        FencedError: The run was started elsewhere.
    """
    message_memory.prepare(allowed=settings.kafka.fast_consumer == "auto")
    aborts, rows = 0, -1

    def progressed(progress: ReplayProgress) -> None:
        nonlocal aborts, rows
        if progress.rows > rows:
            aborts, rows = 0, progress.rows
        on_progress(progress)

    while True:
        try:
            with _prepared(settings, run, new_task) as (lanes, log, output, group):
                driver = ReplayDriver(
                    run.topics,
                    lanes,
                    reader=log,
                    output=output,
                    group=group,
                    clock=new_clock(),
                    control=control,
                    end_ns=run.end_ns,
                    on_progress=progressed,
                )
                return driver.run()
        except FencedError as error:
            raise FencedError(
                f"expected to be the only process that runs replay {run.run}, was replaced by "
                "another; it goes on there"
            ) from error
        except (TransactionAbortedError, OutputFailedError):
            # The next try has a producer of its own.
            aborts += 1
            if aborts > _MOST_ABORTS_IN_A_ROW:
                raise


def run_group(settings: Settings, run: str) -> str:
    """Returns the group whose offsets are a run's progress; also its transactional id."""
    return f"{settings.environment}.replay.{run}"


@contextlib.contextmanager
def _prepared(
    settings: Settings, run: ReplayRun, new_task: Callable[[int, int], Task]
) -> Iterator[tuple[dict[int, Lane], LogReader, ExactlyOnceOutput, object]]:
    """Yields lanes at their plans, and the clients of a run; fences an earlier process of it."""
    source = run.topics.source
    group = run_group(settings, run.run)
    admin = admin_client(settings)
    partitions = partition_count(admin, source)
    counts = partition_counts(admin)
    ensure_topics(settings, [_output_spec(settings, run.topics.output, partitions)])
    output = ExactlyOnceOutput(
        producer(
            settings,
            transactional_id=group,
            transaction_timeout_ms=settings.features.transaction_timeout_ms,
        ),
        timeout_s=settings.features.transaction_timeout_ms / 1000,
    )
    consumer = reader(settings, group, buffer_bytes=_BUFFER_BYTES)
    own = offsets_client(settings, group)
    live = offsets_client(settings, run.live.group)
    try:
        # Only now is it certain that no earlier process of this run commits anything any more.
        output.start()
        member = own.consumer_group_metadata()
        archive = ArchivedState(
            consumer,
            state_archive_topic(run.live.group),
            run.live.set_hash,
            partitions,
            counts.get(state_archive_topic(run.live.group), 0),
        )
        output_id = topic_id(admin, run.topics.output)
        plans = committed_plan(own, source, range(partitions))
        if plans:
            check_same(plans, partitions, run.request, run.topics.output, output_id)
        else:
            _check_output(
                consumer, run.topics, partition_count(admin, run.topics.output), partitions
            )
            plans = Planner(consumer, live, source, run.live, archive).plan(
                partitions,
                counts.get(run.live.output, 0),
                run.start_ns,
                cold=run.cold,
                request=run.request,
                output_id=output_id,
            )
            # From here on the run means the same, wherever it is started again.
            output.begin()
            output.commit(offsets_of(source, plans.values()), member)
        lanes = {
            p: Lane(plan, _restored(new_task(p, partitions), plan, archive), run.live.group)
            for p, plan in plans.items()
        }
        spans = {p: (plan.begin, plan.end) for p, plan in plans.items()}
        yield lanes, LogReader(consumer, source, spans), output, member
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected Kafka to answer, did not ({kafka_error(error).str()}); check the broker"
        ) from error
    finally:
        output.close()
        for client in (consumer, own, live):
            client.close()


def _restored(task: Task, plan: PartitionPlan, archive: ArchivedState) -> Task:
    if plan.cycle:
        for head, payload in archive.chunks(plan.partition, plan.cycle):
            task.load_chunk(head.chunk, payload, head.next_offset)
    return task


def _check_output(consumer: Consumer, topics: ReplayTopics, found: int, partitions: int) -> None:
    """Checks that a new run writes to a topic in which nothing is."""
    output = topics.output
    if output == topics.source:
        raise _refused(f"expected another topic than the source, was {output}", "into")
    if found != partitions:
        raise _refused(
            f"expected {output} to have {partitions} partitions as {topics.source}, has {found}",
            "into",
        )
    places = [TopicPartition(output, p) for p in range(partitions)]
    if any(first_and_end(consumer, place, CALL_TIMEOUT_S)[1] > 0 for place in places):
        raise _refused(
            f"expected {output} to be empty, holds records that are not of this run", "run"
        )


def _refused(message: str, field: str) -> RequestFailedError:
    return RequestFailedError(
        Code.FAILED_PRECONDITION, f"{message} ({field}); take another one", field=field
    )


def _output_spec(settings: Settings, name: str, partitions: int) -> TopicSpec:
    config = market_data_config(settings.kafka.retention_bytes)
    return TopicSpec(name, "-", "Arrow IPC stream", "features", partitions, config)
