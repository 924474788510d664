"""Jobs as records: keys, identities, states, and commands in protobuf or JSON."""

import uuid

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from mystocks.v1.job_types_pb2 import (
    JOB_STATE_CANCELLED,
    JOB_STATE_EXPIRED,
    JOB_STATE_FAILED,
    JOB_STATE_SUCCEEDED,
    Job,
    JobState,
)
from mystocks.v1.jobs_pb2 import JobCommand
from schemas.requests import Code, RequestFailedError

JOB_EVENTS_TOPIC = "jobs.events"
REPLAY_COMMANDS_TOPIC = "replay.commands"
# How often a job is started where its options do not say.
DEFAULT_MAX_ATTEMPTS = 3
FINAL_STATES = frozenset(
    {JOB_STATE_SUCCEEDED, JOB_STATE_FAILED, JOB_STATE_CANCELLED, JOB_STATE_EXPIRED}
)

_NAMESPACE = uuid.UUID("6f0c7a52-6d0b-5e0a-9a43-2b8f6f0d2c11")


def job_id(client: str, request_id: str) -> str:
    """Returns the identity of a client's request: an equal one is the same job."""
    return str(uuid.uuid5(_NAMESPACE, f"{client}/{request_id}"))


def replay_job_id(environment: str, run: str) -> str:
    """Returns the identity of a replay, whoever asks for it: a run has one output."""
    return str(uuid.uuid5(_NAMESPACE, f"replay/{environment}/{run}"))


def replay_group(environment: str) -> str:
    """Returns the consumer group of role `replay`."""
    return f"{environment}.replay"


def event_key(job: Job) -> bytes:
    """Returns the key of an event, under which compaction keeps the newest of a state."""
    return f"{job.job_id}/{job.attempt}/{state_name(job.state)}".encode()


def state_name(state: "JobState.ValueType") -> str:
    """Returns a state as people write it, for example ``RUNNING``."""
    return JobState.Name(state).removeprefix("JOB_STATE_")


def decode_command(value: bytes) -> JobCommand:
    """Returns the command in a record's value.

    Raises:
        RequestFailedError: It is neither protobuf nor JSON of a command, or has no job id.
    """
    try:
        if value.lstrip()[:1] == b"{":
            command = json_format.Parse(value, JobCommand())
        else:
            command = JobCommand.FromString(value)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError) as error:
        raise RequestFailedError(
            Code.INVALID_ARGUMENT,
            f"expected a JobCommand, was {len(value)} bytes that are none ({error}); "
            "correct the sender",
        ) from None
    if not command.job_id or command.WhichOneof("command") is None:
        raise RequestFailedError(
            Code.INVALID_ARGUMENT,
            "expected a command with a job id, was without one of them; correct the sender",
            field="job_id" if not command.job_id else "command",
        )
    return command
