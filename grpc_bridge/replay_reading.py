"""Reads the output of one replay while it is written, in a thread of its own."""

import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException, TopicPartition

from grpc_bridge.replay_records import bar_encoder, feature_encoder
from mystocks.v1.job_types_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
    JobOptions,
)
from mystocks.v1.jobs_pb2 import CancelCommand, JobCommand
from mystocks.v1.realtime_pb2 import ReplayMarketDataResponse, ReplayProgress
from schemas.errors import MyStocksError, UnavailableError
from schemas.jobs import REPLAY_COMMANDS_TOPIC, replay_group, replay_job_id
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.topics import bars_topic, features_topic, replay_topic
from streams.jobs.commands import CommandSender
from streams.jobs.events import JobEventReader
from streams.kafka.admin import admin_client
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.feature_positions import ends_of, watermarks
from streams.kafka.tail import records_of, tail_consumer

_BUFFER_BYTES = 4 * 1024**2
_MESSAGES = 64
_POLL_S = 0.1
_PROGRESS_EVERY_S = 1.0
# A role that runs accepts a command within a moment.
_ACCEPTED_S = 30.0
# For the role to end a replay that nobody waits for any more.
_CANCELLED_S = 10.0


class ReplayReading:
    """One call.

    Args:
        settings: Servers, and the feature set where the request names none.
        request: What to replay.
        hand_over: Takes serialized responses; waits while the client is slow.
        stopping: Set when the client is gone.
        keep: Whether run and output stay when the call ends.
    """

    def __init__(
        self,
        settings: Settings,
        request: ReplayRequest,
        hand_over: Callable[[bytes], None],
        stopping: threading.Event,
        *,
        keep: bool,
    ) -> None:
        self._settings = settings
        self._request = request
        self._hand_over = hand_over
        self._stopping = stopping
        self._keep = keep
        feature_set = request.feature_set or settings.features.name
        live = bars_topic(request.bars) if request.bars else features_topic(feature_set)
        self._topic = replay_topic(live, request.run)
        self._encode = bar_encoder(request.bars) if request.bars else feature_encoder(feature_set)
        self._job_id = replay_job_id(settings.environment, request.run)
        self._sent_rows = 0
        self._newest_ns = 0
        self._told = 0.0
        self._positions: dict[int, int] = {}

    def run(self) -> None:
        """Asks for the replay and hands over what it writes, until it has ended.

        Raises:
            RequestFailedError: The replay failed or was cancelled.
            UnavailableError: No role runs, or the broker does not answer.
        """
        sender = CommandSender(
            self._settings, REPLAY_COMMANDS_TOPIC, replay_group(self._settings.environment)
        )
        events = JobEventReader(self._settings, "bridge-replay")
        consumer = tail_consumer(self._settings, f"bridge-{self._request.run}", _BUFFER_BYTES)
        try:
            if events.open(self._job_id) is None:
                self._ask(sender)
            self._follow(events, consumer)
        except KafkaException as error:
            raise UnavailableError(
                f"expected the rows of the replay, were refused ({error}); check the broker"
            ) from error
        finally:
            consumer.close()
            if not self._keep:
                self._tidy_up(events, sender)
            events.close()

    def _ask(self, sender: CommandSender) -> None:
        if not sender.workers():
            raise RequestFailedError(
                Code.UNAVAILABLE,
                "expected a process of role replay, none is running; start one",
                retry_after_s=1.0,
            )
        options = JobOptions(client="bridge", request_id=self._request.run)
        spec = self._request.as_spec()
        sender.send(JobCommand(job_id=self._job_id, options=options, replay=spec))

    def _follow(self, events: JobEventReader, consumer: Consumer) -> None:
        asked = time.monotonic()
        ends: dict[int, int] | None = None
        while not self._stopping.is_set():
            events.poll(0.0 if self._positions else _POLL_S)
            job = events.job
            if job is None:
                if time.monotonic() - asked > _ACCEPTED_S:
                    raise UnavailableError(
                        f"expected role replay to accept the command within {_ACCEPTED_S:g} s, "
                        "was silent; see its log"
                    )
                continue
            self._check(job)
            if not self._positions:
                self._assign(consumer)
            if job.state == JOB_STATE_SUCCEEDED and ends is None:
                if not self._positions:
                    raise RequestFailedError(
                        Code.FAILED_PRECONDITION,
                        f"expected the output of run {self._request.run} in {self._topic}, it is "
                        "there no more (run); take another run",
                        field="run",
                    )
                ends = ends_of(watermarks(consumer, self._topic, self._positions))
            if self._positions:
                self._pass_on(consumer)
            if ends is not None and all(self._positions[p] >= ends[p] for p in ends):
                self._progress(1.0)
                return
            if time.monotonic() - self._told >= _PROGRESS_EVERY_S:
                self._progress(job.progress)

    def _check(self, job: Job) -> None:
        """Raises what became of a job that is another one, or ended otherwise than well."""
        self._request.check_same(job, self._settings)
        if job.state == JOB_STATE_FAILED:
            code = Code(job.reason_code) if job.reason_code else Code.INTERNAL
            raise RequestFailedError(code, job.reason, field=job.reason_field)
        if job.state == JOB_STATE_CANCELLED:
            raise RequestFailedError(
                Code.ABORTED,
                f"expected the replay to go on, was cancelled ({job.reason}); take another run",
            )

    def _assign(self, consumer: Consumer) -> None:
        """Begins to read the output, as soon as it is there."""
        found = consumer.list_topics(timeout=CALL_TIMEOUT_S).topics.get(self._topic)
        if found is None or found.error is not None:
            return
        self._positions = {
            p: first_and_end(consumer, TopicPartition(self._topic, p), CALL_TIMEOUT_S)[0]
            for p in found.partitions
        }
        consumer.assign([TopicPartition(self._topic, p, at) for p, at in self._positions.items()])

    def _pass_on(self, consumer: Consumer) -> None:
        messages = consumer.consume(1, _POLL_S)
        if messages:
            messages += consumer.consume(_MESSAGES - 1, 0.0)
        for message in records_of(messages, self._topic, self._positions, set()):
            record = self._encode(message)
            self._hand_over(record.response)
            self._sent_rows += record.rows
            self._newest_ns = max(self._newest_ns, record.newest_ns)
            if self._stopping.is_set():
                return

    def _progress(self, fraction: float) -> None:
        self._told = time.monotonic()
        progress = ReplayProgress(
            event_time_ns=self._newest_ns, ticks=self._sent_rows, fraction=fraction
        )
        self._hand_over(ReplayMarketDataResponse(progress=progress).SerializeToString())

    def _tidy_up(self, events: JobEventReader, sender: CommandSender) -> None:
        """Ends the replay if it still runs, and deletes its output."""
        try:
            if events.job is not None and not events.ended:
                cancel = CancelCommand(reason="the call that asked for it has ended")
                sender.send(JobCommand(job_id=self._job_id, cancel=cancel))
            deadline = time.monotonic() + _CANCELLED_S
            while events.job is not None and not events.ended and time.monotonic() < deadline:
                events.poll(_POLL_S)
            # It answers only as long as somebody holds it.
            admin = admin_client(self._settings)
            for future in admin.delete_topics([self._topic]).values():
                future.result(CALL_TIMEOUT_S)
        except (KafkaException, MyStocksError, TimeoutError):
            # The topic was never made, or stays until somebody deletes it.
            return
