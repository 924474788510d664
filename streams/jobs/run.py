"""A job in a process: what the worker expects of it, and what it knows of it."""

import threading
from dataclasses import dataclass, field
from typing import Protocol

from mystocks.v1.job_types_pb2 import Job, JobKind
from mystocks.v1.jobs_pb2 import JobCommand
from schemas.errors import MyStocksError
from schemas.requests import Code, RequestFailedError
from streams.kafka.errors import FencedError, KafkaUnavailableError


class Run(Protocol):
    """A job in this process; all but `run` may be called from any thread."""

    @property
    def request_hash(self) -> str:
        """Tells what was asked for from everything else that could have been."""

    @property
    def fraction(self) -> float:
        """How far it is, from 0 to 1."""

    @property
    def stage(self) -> str:
        """What it is doing, for people."""

    @property
    def result_location(self) -> str:
        """Where the result is."""

    def run(self) -> str:
        """Runs to the end: ``finished``, ``cancelled`` or ``released``; blocks."""

    def pause(self) -> None:
        """Stands still until `resume`."""

    def resume(self) -> None:
        """Goes on."""

    def cancel(self, reason: str) -> None:
        """Ends for good."""

    def release(self) -> None:
        """Ends here, to go on where it is started again."""


class JobKindRunner(Protocol):
    """What makes the jobs of a kind.

    Attributes:
        kind: The kind.
        command: Field of `JobCommand` that asks for one.
    """

    kind: "JobKind.ValueType"
    command: str

    def prepare(self, command: JobCommand) -> Run:
        """Returns the job, not running.

        Raises:
            RequestFailedError: It cannot be run.
        """


@dataclass
class TakenJob:
    """A command that was accepted and whose job has not ended.

    Attributes:
        job: Its record.
        places: Where it and the commands about it are in the log.
        command: The command.
        run: Once it was prepared.
        thread: Once it runs.
        outcome: What `Run.run` returned.
        error: What it raised.
        said: Stage and progress as of the last event.
        cancelled: Why it is to end; None while it is not.
        done: Set when `execute` has ended.
    """

    job: Job
    places: list[tuple[int, int]]
    command: JobCommand
    run: Run | None = None
    thread: threading.Thread | None = None
    outcome: str = ""
    error: Exception | None = None
    said: tuple[str, float] = ("", 0.0)
    cancelled: str | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def execute(self) -> None:
        """Runs the job and notes how it ended; the target of `thread`."""
        try:
            assert self.run is not None
            self.outcome = self.run.run()
        except Exception as error:
            self.error = error
        finally:
            self.done.set()


def as_failure(error: Exception) -> RequestFailedError:
    """Returns what the job's record says of an error."""
    if isinstance(error, RequestFailedError):
        return error
    if isinstance(error, FencedError):
        return RequestFailedError(Code.ABORTED, str(error))
    if isinstance(error, KafkaUnavailableError):
        return RequestFailedError(Code.UNAVAILABLE, str(error))
    if isinstance(error, MyStocksError):
        return RequestFailedError(Code.FAILED_PRECONDITION, str(error))
    return RequestFailedError(
        Code.INTERNAL,
        f"expected the job to end well, was {type(error).__name__}; the role's log says more",
    )
