"""`mystocks up`: runs servers and roles until Ctrl-C."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from mystocks.cli.endpoints import own_settings

if TYPE_CHECKING:
    from mystocks.cli.local_run import LocalRun
    from schemas.settings import Settings

app = typer.Typer()

_CHECK_INTERVAL_S = 0.1


@app.command()
def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Directory for everything kept on disk.")
    ] = None,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Forget the servers' data at the end.")
    ] = False,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of the topics that are created.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when everything is ready.")
    ] = False,
) -> None:
    """Start Kafka, Redis and all roles, and keep them running until Ctrl-C.

    Servers that are configured (MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS, MYSTOCKS_REDIS__URL) are used
    instead of embedded ones.
    """
    overrides: dict[str, Any] = {}
    if data_dir is not None:
        overrides["data_dir"] = data_dir
    if partitions is not None:
        overrides["kafka"] = {"partitions": partitions}
    raise typer.Exit(run(own_settings(**overrides), ephemeral=ephemeral, as_json=as_json))


def run(settings: "Settings", *, ephemeral: bool, as_json: bool) -> int:
    """Runs everything until a signal; returns the exit status."""
    from mystocks.cli.local_run import LocalRun, ready_line
    from mystocks.cli.progress import first_start_progress

    stopping = _Stopping()
    with first_start_progress() as progress:
        local_run = LocalRun(
            _for_this_terminal(settings),
            ephemeral=ephemeral,
            progress=progress,
            echo=_no_echo if as_json else _echo,
            say=_say,
        )
        try:
            ready = ready_line(local_run.start(), local_run.settings)
            stopping.by_request()
        except _StopError:
            local_run.stop()
            return 0
    _print(json.dumps(ready) if as_json else _readable(ready, settings), sys.stdout)
    return _keep_running(local_run, stopping)


class _StopError(Exception):
    """A signal came while things were being started."""


class _Stopping:
    """SIGINT, SIGTERM or SIGHUP: interrupts the start, later only asks for the end."""

    def __init__(self) -> None:
        self.requested = False
        self._starting = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def by_request(self) -> None:
        """From now on a signal sets `requested` and interrupts nothing."""
        self._starting = False

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        first = not self.requested
        self.requested = True
        if self._starting and first:
            raise _StopError


def _keep_running(local_run: "LocalRun", stopping: _Stopping) -> int:
    try:
        while not stopping.requested:
            local_run.check()
            time.sleep(_CHECK_INTERVAL_S)
        _say("stopping: roles finish and commit")
    finally:
        drained = local_run.stop()
    return 0 if drained else 1


def _for_this_terminal(settings: "Settings") -> "Settings":
    """Lets roles log for people when their lines are shown on a terminal."""
    if settings.log.format == "auto" and os.isatty(sys.stdout.fileno()):
        log = settings.log.model_copy(update={"format": "console"})
        return settings.model_copy(update={"log": log})
    return settings


def _echo(role: str, line: str) -> None:
    _print(f"{role} | {line}", sys.stdout)


def _no_echo(_role: str, _line: str) -> None:
    pass


def _say(message: str) -> None:
    _print(message, sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # Nobody reads any more; that is no reason to stop. What is buffered goes nowhere, since
        # the interpreter would fail to write it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _readable(ready: dict[str, Any], settings: "Settings") -> str:
    lines = [
        f"kafka    {ready['kafka']}",
        f"redis    {ready['redis']}",
        *([f"grpc     {ready['grpc']}"] if ready["grpc"] else []),
        *(f"metrics  {url} ({role})" for role, url in ready["metrics"].items()),
        f"data     {settings.data_dir}",
        "ready: try `mystocks ticks produce FILE.csv` and `mystocks features tail` in another "
        "terminal; Ctrl-C stops everything",
    ]
    return "\n".join(lines)
