"""Runs a program that cannot outlive the process that started it.

Usage: `python launcher.py PARENT_PID signal|watch PROGRAM [ARGUMENT...]`. Run as a file, with the
standard library only, so that it costs a few milliseconds.

`signal` asks the Linux kernel to kill the program when the parent ends, then becomes the program.
`watch` stays beside the program and kills it when the parent is gone; it works everywhere.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_WATCH_INTERVAL_S = 0.1


def run_signalled(parent: int, command: list[str]) -> None:
    """Replaces this process by `command`, which the kernel kills when `parent` ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)


def run_watched(parent: int, command: list[str]) -> int:
    """Runs `command`, passes SIGTERM and SIGINT on, and kills it when `parent` is gone."""
    child = subprocess.Popen(command, close_fds=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(_WATCH_INTERVAL_S)
    return child.returncode


def main(arguments: list[str]) -> int:
    """Runs the program as the arguments say; returns its exit status."""
    parent, mode, *command = arguments
    if mode == "signal":
        run_signalled(int(parent), command)
    return run_watched(int(parent), command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
