"""SIGSTOP that has taken effect."""

import os
import signal
import time
from pathlib import Path

_LONGEST_S = 10.0


def suspend(pid: int) -> None:
    """Stops a process and returns once none of its threads runs.

    The signal alone does not wait for that: on a busy machine a broker with many threads answers
    for some milliseconds more.
    """
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    if not threads.is_dir():  # not Linux
        time.sleep(0.5)
        return
    deadline = time.monotonic() + _LONGEST_S
    while any(_state(thread) not in "TtZX" for thread in threads.iterdir()):
        assert time.monotonic() < deadline, f"process {pid} did not stop"
        time.sleep(0.001)


def _state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
