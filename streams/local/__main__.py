"""`python -m streams.local DIRECTORY`: the local stack by itself, until SIGTERM or SIGINT.

Prints one JSON line with the endpoints when clients can connect. `--prepare` only downloads and
makes what a start needs, so that the next one is fast and works offline.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from schemas.errors import MyStocksError
from streams.local.artifacts import ensure_jars
from streams.local.class_data import ensure_class_data
from streams.local.java import find_java
from streams.local.stack import LocalStack

_POLL_S = 0.2


def main() -> int:
    """Runs the stack; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m streams.local", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", help="data directory")
    parser.add_argument("--while-pid", type=int, metavar="PID", help="end when this process ends")
    parser.add_argument("--quick-start", action="store_true", help="for a life of a few minutes")
    parser.add_argument("--prepare", action="store_true", help="download what is needed and end")
    arguments = parser.parse_args()
    if not arguments.prepare and arguments.directory is None:
        parser.error("expected a data directory, was none")
    try:
        if arguments.prepare:
            prepare()
        else:
            serve(arguments.directory, arguments.while_pid, quick_start=arguments.quick_start)
    except MyStocksError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def prepare() -> None:
    """Fetches Kafka and makes the class-data archive, once per machine."""
    java = find_java()
    ensure_class_data(java, ensure_jars(_report), _report)


def serve(directory: Path, while_pid: int | None, *, quick_start: bool = False) -> None:
    """Runs the stack until a signal, the end of process `while_pid`, or the end of a server."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    stack = LocalStack(directory, quick_start=quick_start)
    try:
        print(json.dumps(asdict(stack.start())), flush=True)
        while (reason := stack.failure()) is None:
            if while_pid is not None and not _runs(while_pid):
                return
            time.sleep(_POLL_S)
        print(f"error: {reason}", file=sys.stderr)
    except _LeaveError:
        return
    finally:
        stack.stop()


class _LeaveError(Exception):
    """A signal asked this process to end."""


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise _LeaveError


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _report(step: str, done: int, total: int) -> None:
    if done in (0, total):
        print(f"{step}: {'done' if done else 'started'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
