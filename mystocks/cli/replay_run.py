"""What `mystocks replay` does: a command for role `replay`, or the same work in this process."""

import math
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mystocks.v1.job_types_pb2 import JOB_STATE_SUCCEEDED, Job, JobOptions
from mystocks.v1.jobs_pb2 import CancelCommand, JobCommand, PauseCommand, ResumeCommand
from schemas.errors import InvalidInputError, UnavailableError
from schemas.jobs import (
    FINAL_STATES,
    REPLAY_COMMANDS_TOPIC,
    replay_group,
    replay_job_id,
    state_name,
)
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from streams.jobs.commands import CommandSender
from streams.jobs.events import JobEventReader, follow

# A role that runs accepts a command within a moment; one that is being started takes longer.
_ACCEPTED_S = 60.0


def new_run() -> str:
    """Returns an id that no other run has, rising with time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def parse_speed(text: str) -> float | None:
    """Returns a speed; None for ``max``.

    Raises:
        InvalidInputError: It is neither a number above 0 nor ``max``.
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise InvalidInputError(f"expected a number above 0 or max, was {text!r} (--speed)")
    return speed


def run_by_role(settings: Settings, request: ReplayRequest) -> dict[str, Any]:
    """Asks role `replay` and follows the job to its end.

    Raises:
        UnavailableError: No process of the role runs, or it did not accept the command.
        RequestFailedError: The run is known as another replay.
    """
    group = replay_group(settings.environment)
    job_id = replay_job_id(settings.environment, request.run)
    sender = CommandSender(settings, REPLAY_COMMANDS_TOPIC, group)
    events = JobEventReader(settings, "replay-command")
    try:
        known = events.open(job_id)
        if known is None:
            _check_role_runs(sender, group)
            options = JobOptions(client="cli", request_id=request.run)
            sender.send(JobCommand(job_id=job_id, options=options, replay=request.as_spec()))
        else:
            request.check_same(known, settings)
        deadline = time.monotonic() + _ACCEPTED_S
        with _interruption() as interrupted, _bar(request.run) as show:
            job = follow(
                events,
                lambda job: show(job.progress, job.stage),
                lambda: (
                    not interrupted() and (events.job is not None or time.monotonic() < deadline)
                ),
            )
    finally:
        events.close()
    if job is None:
        raise UnavailableError(
            f"expected role replay to accept the command within {_ACCEPTED_S:g} s, was silent; see "
            "`mystocks logs replay`"
        )
    # Somebody else may have asked for another replay of this name in the same moment.
    request.check_same(job, settings)
    return _result(request.run, job)


def run_here(settings: Settings, request: ReplayRequest) -> dict[str, Any]:
    """Runs a replay in this process; Ctrl-C ends it so that it can go on later.

    Raises:
        RequestFailedError: It cannot be run as things are.
        UnavailableError: The broker does not answer.
    """
    from mystocks.replay_job import ReplayJob

    began = time.monotonic()
    job = ReplayJob(settings, request)
    with _interruption(job.release), _bar(request.run) as show:
        outcome = job.run(lambda progress: show(progress.fraction, job.stage))
    if outcome == "released":
        print(f"interrupted: the same command with --run-id {request.run} goes on", file=sys.stderr)
    return {
        "run": request.run,
        "state": "SUCCEEDED" if outcome == "finished" else "QUEUED",
        "topic": job.output,
        "rows": job.progress.rows,
        "seconds": round(time.monotonic() - began, 3),
    }


def tell(settings: Settings, what: str, run: str) -> dict[str, Any]:
    """Pauses, resumes or cancels a run.

    Raises:
        RequestFailedError: NOT_FOUND: there is no such run; FAILED_PRECONDITION: it has ended.
    """
    job_id = replay_job_id(settings.environment, run)
    events = JobEventReader(settings, "replay-command")
    try:
        job = events.open(job_id)
    finally:
        events.close()
    if job is None:
        raise RequestFailedError(
            Code.NOT_FOUND, f"expected the id of a run, was {run!r}, which nobody asked for"
        )
    if job.state in FINAL_STATES:
        raise RequestFailedError(
            Code.FAILED_PRECONDITION,
            f"expected a run that goes on, has {state_name(job.state)} ({run})",
        )
    command = JobCommand(job_id=job_id)
    if what == "pause":
        command.pause.CopyFrom(PauseCommand())
    elif what == "resume":
        command.resume.CopyFrom(ResumeCommand())
    else:
        command.cancel.CopyFrom(CancelCommand(reason="asked for on the command line"))
    sender = CommandSender(settings, REPLAY_COMMANDS_TOPIC, replay_group(settings.environment))
    sender.send(command)
    return {"run": run, "told": what}


def _check_role_runs(sender: CommandSender, group: str) -> None:
    if not sender.workers():
        raise UnavailableError(
            f"expected a process of role replay, none is running (group {group}); `mystocks up` "
            "runs one, or give --local to do the work in this process"
        )


def _result(run: str, job: Job) -> dict[str, Any]:
    if job.state not in FINAL_STATES:
        print(f"detached: the run goes on; `mystocks replay cancel {run}` ends it", file=sys.stderr)
    result: dict[str, Any] = {
        "run": run,
        "state": state_name(job.state),
        "topic": job.result_location,
        "stage": job.stage,
        "reason": job.reason,
    }
    if job.state == JOB_STATE_SUCCEEDED:
        seconds = (job.ended_at.ToNanoseconds() - job.started_at.ToNanoseconds()) / 1e9
        result["seconds"] = round(seconds, 3)
    return result


@contextmanager
def _interruption(stop: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM call `stop` once; yields whether one came."""
    came = False

    def handle(number: int, _frame: object) -> None:
        nonlocal came
        came = True
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(run: str) -> Iterator[Callable[[float, str], None]]:
    """Shows a progress bar on a terminal; yields what moves it."""
    if not sys.stderr.isatty():
        yield lambda _fraction, _stage: None
        return
    progress = Progress(
        TextColumn(run),
        BarColumn(),
        TextColumn("{task.percentage:>5.1f} %  {task.description}"),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
    )
    with progress:
        task = progress.add_task("", total=1.0)

        def show(fraction: float, stage: str) -> None:
            progress.update(task, completed=fraction, description=stage)

        yield show
