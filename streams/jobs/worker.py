"""Runs the jobs of one kind, one at a time: commands in, events out, each job to its end once.

    <kind>.commands -> accept (check, dedupe by job id) -> run in a thread -> jobs.events
                            ^ pause, resume, cancel

The offset of a command is committed when its job has ended. So the jobs of a process that died go
to another one, or to itself when it is started again, with all that was said about them since.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from mystocks.v1.job_types_pb2 import (
    JOB_STATE_ACCEPTED,
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_QUEUED,
    JOB_STATE_RUNNING,
    JOB_STATE_SUCCEEDED,
    Job,
    JobState,
)
from mystocks.v1.jobs_pb2 import JobCommand
from schemas import headers as names
from schemas.errors import MyStocksError
from schemas.jobs import DEFAULT_MAX_ATTEMPTS, FINAL_STATES, decode_command, job_id
from schemas.requests import Code, RequestFailedError
from streams.jobs.events import JobEventReader, JobEventWriter
from streams.jobs.run import JobKindRunner, TakenJob, as_failure
from streams.kafka.batch import header
from streams.kafka.errors import FencedError, is_fenced, kafka_error
from streams.requests.progress import Progress

# How long an idle poll waits; also bounds how late a job's end is seen.
_IDLE_S = 0.1
_MESSAGES = 64
# How often a running job tells how far it is.
_PROGRESS_EVERY_S = 1.0
# A job that is taken away, or told to end with the process, commits within this.
_RELEASE_S = 20.0

_log = structlog.get_logger(__name__)


class JobWorker:
    """Takes commands of one topic and runs their jobs, one after the other.

    Args:
        topic: Commands.
        group: Consumer group.
        runner: Makes the jobs.
        consumer: Member of the group.
        writer: Of events.
        reader: Of events, for what is known of a job already.
        worker_id: Of this process.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        topic: str,
        group: str,
        runner: JobKindRunner,
        *,
        consumer: Consumer,
        writer: JobEventWriter,
        reader: JobEventReader,
        worker_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._group = group
        self._runner = runner
        self._consumer = consumer
        self._writer = writer
        self._reader = reader
        self._worker_id = worker_id
        self._clock = clock
        self._progress = Progress()
        self._taken: OrderedDict[str, TakenJob] = OrderedDict()
        self._assigned = False
        self._stopping = False
        self._told = clock()

    def stop(self) -> None:
        """Makes `run` hand over what it runs and return."""
        self._stopping = True

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs until `stop`.

        Args:
            on_ready: Called once the group has given this process its share.

        Raises:
            FencedError: Another process of this name has taken over.
            KafkaUnavailableError: The broker does not answer.
        """
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_revoke,
        )
        ready = False
        try:
            while not self._stopping:
                for message in self._poll():
                    self._take(message)
                self._step()
                if self._assigned and not ready:
                    ready = True
                    on_ready()
            self._release(set(self._taken))
            self._commit()
        finally:
            self._consumer.close()
            self._reader.close()

    def _poll(self) -> list[Message]:
        messages = self._consumer.consume(1, _IDLE_S)
        if messages:
            messages += self._consumer.consume(_MESSAGES - 1, 0.0)
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            elif is_fenced(error) or error.fatal():
                raise FencedError(
                    f"expected to be the only process of this name, was fenced ({error.str()}); "
                    "stop one of the two"
                )
            else:
                _log.warning("no commands for now", error=error.str())
        return good

    def _take(self, message: Message) -> None:
        place = message.partition(), message.offset()
        self._progress.begin(*place)
        group = header(message.headers(), names.GROUP)
        if group is not None and group != self._group:
            self._progress.done(*place)
            return
        try:
            command = decode_command(message.value() or b"")
        except RequestFailedError as error:
            self._refuse(self._unreadable(message), error)
            self._progress.done(*place)
            return
        kind = command.WhichOneof("command")
        taken = self._taken.get(command.job_id)
        if kind in ("cancel", "pause", "resume"):
            self._tell(taken, command, place)
        elif taken is not None:
            self._progress.done(*place)
        else:
            self._accept(command, place)

    def _accept(self, command: JobCommand, place: tuple[int, int]) -> None:
        job = self._reader.open(command.job_id)
        if job is not None and job.state in FINAL_STATES:
            self._progress.done(*place)
            return
        if job is None:
            job = Job(
                job_id=command.job_id,
                kind=self._runner.kind,
                state=JOB_STATE_ACCEPTED,
                attempt=1,
                options=command.options,
            )
            job.accepted_at.GetCurrentTime()
        elif job.state == JOB_STATE_RUNNING:
            # Whoever ran it has not handed it over.
            job.attempt += 1
        taken = TakenJob(job, [place], command)
        try:
            if command.WhichOneof("command") != self._runner.command:
                raise RequestFailedError(
                    Code.INVALID_ARGUMENT,
                    f"expected a command {self._runner.command} on {self._topic}, was "
                    f"{command.WhichOneof('command')}; send it to its own topic",
                    field="command",
                )
            self._check_attempts(job)
            taken.run = self._runner.prepare(command)
            job.request_hash = taken.run.request_hash
        except RequestFailedError as error:
            self._refuse(job, error)
            self._progress.done(*place)
            return
        if job.state == JOB_STATE_ACCEPTED:
            self._writer.write(job, wait=True)
        self._set(taken, JOB_STATE_QUEUED)
        self._taken[command.job_id] = taken
        _log.info("job accepted", job=job.job_id, attempt=job.attempt)

    @staticmethod
    def _check_attempts(job: Job) -> None:
        most = job.options.max_attempts or DEFAULT_MAX_ATTEMPTS
        if job.attempt > most:
            raise RequestFailedError(
                Code.ABORTED,
                f"expected the job to end within {most} attempts, did not: its process died each "
                "time; see the log of the role",
            )

    def _tell(self, taken: TakenJob | None, command: JobCommand, place: tuple[int, int]) -> None:
        if taken is None or taken.run is None:
            self._progress.done(*place)
            return
        # They are read again where the job is started again.
        taken.places.append(place)
        kind = command.WhichOneof("command")
        _log.info("job told", job=command.job_id, what=kind)
        if kind == "pause":
            taken.run.pause()
        elif kind == "resume":
            taken.run.resume()
        else:
            taken.cancelled = command.cancel.reason or "cancelled"
            taken.run.cancel(taken.cancelled)
        self._told = -1.0

    def _step(self) -> None:
        """Starts the next job, tells how far the running one is, ends it when it has."""
        running = next(iter(self._taken.values()), None)
        if running is not None:
            if running.thread is None:
                self._start(running)
            elif running.done.is_set():
                self._end(running)
            elif self._clock() - self._told >= _PROGRESS_EVERY_S:
                self._tell_progress(running)
        for waiting in list(self._taken.values()):
            if waiting.cancelled is not None and waiting.thread is None:
                waiting.outcome = "cancelled"
                self._end(waiting)
        self._commit()

    def _start(self, taken: TakenJob) -> None:
        if taken.cancelled is not None:
            return
        if not taken.job.HasField("started_at"):
            taken.job.started_at.GetCurrentTime()
        taken.job.worker_id = self._worker_id
        self._set(taken, JOB_STATE_RUNNING)
        taken.thread = threading.Thread(
            target=taken.execute, name=f"job {taken.job.job_id}", daemon=True
        )
        taken.thread.start()

    def _tell_progress(self, taken: TakenJob) -> None:
        self._told = self._clock()
        assert taken.run is not None
        said = taken.run.stage, taken.run.fraction
        if said != taken.said:
            taken.said = said
            taken.job.stage, taken.job.progress = said
            self._writer.write(taken.job)

    def _end(self, taken: TakenJob) -> None:
        job, run = taken.job, taken.run
        if taken.error is not None:
            failure = as_failure(taken.error)
            if failure.code == Code.INTERNAL:
                _log.error("job failed", job=job.job_id, exc_info=taken.error)
            self._refuse(job, failure)
        elif taken.outcome == "cancelled":
            job.reason = taken.cancelled or ""
            self._finish(job, JOB_STATE_CANCELLED)
        else:
            assert run is not None
            job.stage, job.progress = run.stage, 1.0
            job.result_location = run.result_location
            self._finish(job, JOB_STATE_SUCCEEDED)
        self._forget(taken, done=True)

    def _forget(self, taken: TakenJob, *, done: bool) -> None:
        del self._taken[taken.job.job_id]
        if done:
            for place in taken.places:
                self._progress.done(*place)

    def _set(self, taken: TakenJob, state: "JobState.ValueType") -> None:
        taken.job.state = state
        self._writer.write(taken.job, wait=True)

    def _finish(self, job: Job, state: "JobState.ValueType") -> None:
        job.state = state
        job.ended_at.GetCurrentTime()
        self._writer.write(job, wait=True)
        _log.info("job ended", job=job.job_id, state=JobState.Name(state), reason=job.reason)

    def _refuse(self, job: Job, error: RequestFailedError) -> None:
        job.reason, job.reason_code, job.reason_field = error.message, error.code, error.field
        self._finish(job, JOB_STATE_FAILED)

    def _unreadable(self, message: Message) -> Job:
        """Returns a record for a command that does not say which job it is about."""
        place = f"{self._topic}/{message.partition()}/{message.offset()}"
        job = Job(job_id=job_id(self._group, place), kind=self._runner.kind, attempt=1)
        job.accepted_at.GetCurrentTime()
        return job

    def _release(self, job_ids: set[str]) -> None:
        """Ends jobs here without ending them for good."""
        for taken in [self._taken[each] for each in job_ids if each in self._taken]:
            if taken.thread is not None and taken.run is not None:
                taken.run.release()
                taken.thread.join(_RELEASE_S)
            if taken.done.is_set() and taken.outcome != "released":
                self._end(taken)
                continue
            if taken.done.is_set():
                taken.job.stage = "handed over"
                self._set(taken, JOB_STATE_QUEUED)
            # One that does not end in time is fenced by whoever starts it again.
            self._forget(taken, done=False)

    def _commit(self) -> None:
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._progress.advanced().items()
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if is_fenced(kafka_error(error)):
                raise FencedError(
                    "expected to be the only process of this name, was fenced at a commit; "
                    "stop one of the two"
                ) from error
            # Without a later commit the commands are read again, and their jobs have ended.
            _log.warning("offsets were not committed", error=kafka_error(error).str())

    def _on_assign(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        self._assigned = True
        _log.info("assigned", partitions=sorted(part.partition for part in partitions))

    def _on_revoke(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        gone = {part.partition for part in partitions}
        try:
            self._release({key for key, taken in self._taken.items() if taken.places[0][0] in gone})
            self._commit()
        except MyStocksError as error:
            # A callback raises nothing; the next poll or commit meets the same.
            _log.warning("not handed over", error=str(error))
        for partition in gone:
            self._progress.forget(partition)
