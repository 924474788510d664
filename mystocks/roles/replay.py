"""The `replay` role: the past again, as if it were live.

    replay.commands -> check, queue -> market.ticks -> kernel -> rows that are due
        -> features.<set>.replay.<run> or market.bars.<interval>.replay.<run>, jobs.events

A process runs one replay at a time; start more processes to run more at once. A replay whose
process died goes on in another one with the row after the last one that was written.
"""

import os
import re
import socket

from mystocks.replay_job import ReplayJob
from mystocks.roles.process import RoleProcess
from mystocks.v1.job_types_pb2 import JOB_KIND_REPLAY
from mystocks.v1.jobs_pb2 import JobCommand
from schemas.jobs import JOB_EVENTS_TOPIC, REPLAY_COMMANDS_TOPIC, replay_group
from schemas.replay import ReplayRequest
from schemas.settings import Settings
from schemas.ticks import TickDecoder
from streams.jobs.events import JobEventReader, JobEventWriter
from streams.jobs.worker import JobWorker
from streams.kafka.admin import await_topics
from streams.requests.clients import worker_consumer

# A stack that is being started creates the topics after the roles were launched.
_TOPICS_TIMEOUT_S = 30.0


def run(settings: Settings, process: RoleProcess) -> None:
    """Runs until the process is told to stop.

    Args:
        settings: Of which `features` says what is computed where a command names nothing else.
        process: Signals, readiness, metrics and slot.
    """
    group = replay_group(settings.environment)
    await_topics(settings, [REPLAY_COMMANDS_TOPIC, JOB_EVENTS_TOPIC], _TOPICS_TIMEOUT_S)
    TickDecoder().warm_up()
    # Slots are a machine's own; the group has members on several.
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())
    with process.slot(f"{group}.{host}", None) as identity:
        worker = JobWorker(
            REPLAY_COMMANDS_TOPIC,
            group,
            Replays(settings),
            consumer=worker_consumer(settings, group, identity),
            writer=JobEventWriter(settings),
            reader=JobEventReader(settings, group),
            worker_id=f"{host}.{os.getpid()}",
        )
        process.on_stop(worker.stop)
        worker.run(on_ready=process.ready)


class Replays:
    """Makes replays of commands; a `streams.jobs.worker.JobKindRunner`.

    Args:
        settings: Servers, and the feature set where a command names no other.
    """

    kind = JOB_KIND_REPLAY
    command = "replay"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, command: JobCommand) -> ReplayJob:
        """Returns the replay that a command asks for; raises `RequestFailedError` if none can."""
        return ReplayJob(self._settings, ReplayRequest.of_spec(command.replay))
