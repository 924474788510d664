"""Child processes that end with this process, whatever ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

_LAUNCHER = Path(__file__).with_name("launcher.py")

# Linux sends the death signal when the *thread* that started the child ends, so one thread that
# lives as long as this process starts them all.
_spawner = ThreadPoolExecutor(1, thread_name_prefix="spawner")


def spawn(
    command: Sequence[str | Path],
    *,
    output: IO[bytes] | int,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Starts a program that is killed when this process ends.

    It gets a session of its own, so that Ctrl-C in a terminal reaches only this process, which
    then stops its children in order.

    Args:
        command: Program and arguments.
        output: File, or `subprocess.PIPE`, for its standard output and error.
        env: Its whole environment; that of this process by default.
        directory: Its working directory; that of this process by default.
        pass_fds: File descriptors that stay open in it.
    """
    mode = "signal" if sys.platform == "linux" else "watch"
    launch = [sys.executable, "-S", "-I", _LAUNCHER, str(os.getpid()), mode, *command]
    return _spawner.submit(
        subprocess.Popen,
        launch,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=env,
        cwd=directory,
        pass_fds=pass_fds,
        start_new_session=True,
    ).result()


def terminate(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Asks a child to end and kills it after `timeout_s`; True when it ended by itself."""
    process.send_signal(signal.SIGTERM)
    return wait_or_kill(process, timeout_s)


def wait_or_kill(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Waits for a child's end and kills it after `timeout_s`; True when it ended by itself."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        kill(process)
        return False
    return True


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a child at once, with what its launcher may have started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
