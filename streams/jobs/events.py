"""Writing and reading `jobs.events`."""

import time
from collections.abc import Callable

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from google.protobuf.message import DecodeError

from mystocks.v1.job_types_pb2 import Job
from mystocks.v1.jobs_pb2 import JobEvent
from schemas.jobs import JOB_EVENTS_TOPIC, event_key
from schemas.partitioner import partition_for
from schemas.settings import Settings
from streams.jobs.fold import JobFold
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S, producer, reader
from streams.kafka.ends import first_and_end
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.tail import records_of

_POLL_S = 0.1
_log = structlog.get_logger(__name__)


class JobEventWriter:
    """Writes events of jobs; belongs to one thread.

    Args:
        settings: Where Kafka is.

    Raises:
        KafkaUnavailableError: No broker answers, or the topic is missing.
    """

    def __init__(self, settings: Settings) -> None:
        self._partitions = partition_count(admin_client(settings), JOB_EVENTS_TOPIC)
        self._producer: Producer = producer(settings)
        self._failed: KafkaError | None = None

    def write(self, job: Job, *, wait: bool = False) -> None:
        """Writes an event with the whole record of the job.

        Args:
            job: As it is now.
            wait: Whether to return only when the broker has it.

        Raises:
            KafkaUnavailableError: The broker did not take it, or an earlier one.
        """
        event = JobEvent(job=job)
        event.at.GetCurrentTime()
        self._producer.produce(
            JOB_EVENTS_TOPIC,
            event.SerializeToString(),
            event_key(job),
            partition_for(job.job_id, self._partitions),
            on_delivery=self._on_delivery,
        )
        if wait:
            self.flush()
        else:
            self._producer.poll(0)

    def flush(self) -> None:
        """Waits until the broker has everything.

        Raises:
            KafkaUnavailableError: It did not take everything.
        """
        left = self._producer.flush(CALL_TIMEOUT_S)
        if left or self._failed is not None:
            reason = self._failed.str() if self._failed is not None else "no answer"
            self._failed = None
            raise KafkaUnavailableError(
                f"expected the broker to take events of jobs, did not ({reason}); check the broker"
            )

    def _on_delivery(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failed = error


class JobEventReader:
    """Reads the events of one job after the other; belongs to one thread.

    Args:
        settings: Where Kafka is.
        name: Shown in the broker's logs.

    Raises:
        KafkaUnavailableError: No broker answers, or the topic is missing.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._partitions = partition_count(admin_client(settings), JOB_EVENTS_TOPIC)
        self._consumer: Consumer = reader(settings, name)
        self._positions: dict[int, int] = {}
        self._fold = JobFold()
        self._job_id = ""

    def open(self, job_id: str) -> Job | None:
        """Begins with a job and returns its state as of now; None where it has no events.

        Raises:
            KafkaUnavailableError: The broker does not answer.
        """
        self._job_id = job_id
        self._fold = JobFold()
        place = TopicPartition(JOB_EVENTS_TOPIC, partition_for(job_id, self._partitions))
        try:
            low, end = first_and_end(self._consumer, place, CALL_TIMEOUT_S)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected the offsets of {JOB_EVENTS_TOPIC}, got none "
                f"({kafka_error(error).str()}); check the broker"
            ) from error
        place.offset = low
        self._consumer.assign([place])
        self._positions = {place.partition: low}
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while self._positions[place.partition] < end:
            if self.poll(_POLL_S):
                deadline = time.monotonic() + CALL_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise KafkaUnavailableError(
                    f"expected to read {JOB_EVENTS_TOPIC} up to {end}, nothing came; check the "
                    "broker"
                )
        return self._fold.job

    @property
    def job(self) -> Job | None:
        """The job as of the events read so far."""
        return self._fold.job

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self._fold.ended

    def poll(self, timeout_s: float) -> bool:
        """Reads what comes within a time; returns whether anything came for any job.

        Raises:
            KafkaUnavailableError: The broker refuses.
        """
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(1000, 0.0)
        before = dict(self._positions)
        try:
            records = records_of(messages, JOB_EVENTS_TOPIC, self._positions, set())
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected to read {JOB_EVENTS_TOPIC}, was refused "
                f"({kafka_error(error).str()}); check the broker"
            ) from error
        prefix = f"{self._job_id}/".encode()
        for message in records:
            if not (message.key() or b"").startswith(prefix) or message.value() is None:
                continue
            try:
                self._fold.apply(JobEvent.FromString(message.value()).job)
            except DecodeError:
                _log.warning("not a job event", offset=message.offset())
        return self._positions != before

    def close(self) -> None:
        """Ends the consumer."""
        self._consumer.close()


def follow(
    events: JobEventReader, on_change: Callable[[Job], None], going_on: Callable[[], bool]
) -> Job | None:
    """Reads a job's events until its final one; returns the job.

    Args:
        events: Opened for the job.
        on_change: Called with the job whenever it has changed.
        going_on: Asked a few times a second whether to go on.
    """
    shown = None
    while True:
        job = events.job
        if job is not None and job is not shown:
            shown = job
            on_change(job)
        if events.ended or not going_on():
            return job
        events.poll(_POLL_S)
