"""A server program as a child process: start on a free port, wait until ready, stop."""

import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from streams.local.errors import DataDirectoryError, PortTakenError, ServerStartError
from streams.local.ports import HOST, free_port, is_free
from streams.local.process import spawn, terminate

_POLL_S = 0.01
_START_ATTEMPTS = 5
_PORT_TAKEN_MARKS = ("Address already in use", "BindException")
_DISK_FULL_MARKS = ("No space left on device", "Disk quota exceeded")
_READ_ONLY_MARKS = ("Permission denied", "AccessDeniedException", "Read-only file system")


class Server(ABC):
    """Base of the servers of the local stack; a subclass says what to run and when it is ready."""

    name: ClassVar[str]
    ready_timeout_s: ClassVar[float]
    stop_timeout_s: ClassVar[float]

    def __init__(
        self, directory: Path, log: Path, *, port: int = 0, keep_open: Sequence[int] = ()
    ) -> None:
        """Prepares a server that is not running yet.

        Args:
            directory: Where it keeps its data.
            log: File for its output; the one of the last run is kept with the suffix `.1`.
            port: The port it must have; 0 lets it have any.
            keep_open: File descriptors that stay open in it, such as that of a lock.
        """
        self._directory = directory
        self._log = log
        self._fixed_port = port
        self._keep_open = tuple(keep_open)
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._deadline = 0.0

    @property
    def address(self) -> str:
        """`host:port` that clients connect to."""
        return f"{HOST}:{self._port}"

    @property
    def port(self) -> int:
        """The port; 0 before the first start."""
        return self._port

    def launch(self, preferred_port: int = 0) -> None:
        """Starts the program and returns at once; call `wait_ready` next."""
        if self._fixed_port and not is_free(self._fixed_port):
            raise self._port_taken()
        self._port = self._fixed_port or free_port(preferred_port)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists():
            self._log.replace(self._log.with_name(self._log.name + ".1"))
        with self._log.open("wb") as output:
            self._process = spawn(
                self._command(), output=output, directory=self._directory, pass_fds=self._keep_open
            )
        self._deadline = time.monotonic() + self.ready_timeout_s

    def wait_ready(self) -> None:
        """Waits until the server can be used; starts again if its port was taken meanwhile.

        Raises:
            ServerStartError: It ended or was not ready in time.
            PortTakenError: The port that it must have is taken.
            DataDirectoryError: Its directory is full or cannot be written.
        """
        for attempt in range(1, _START_ATTEMPTS + 1):
            if self._becomes_ready():
                return
            output = self._output()
            if not _has(output, _PORT_TAKEN_MARKS) or attempt == _START_ATTEMPTS:
                raise self._start_error(output)
            self.launch()

    def stop(self) -> None:
        """Stops the server; does nothing when it does not run."""
        if self._process is not None:
            terminate(self._process, self.stop_timeout_s)

    def failure(self) -> str | None:
        """Why a started server does not run any more; None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return str(self._start_error(self._output()))

    @property
    def pid(self) -> int | None:
        """Process id; None before the start."""
        return self._process.pid if self._process else None

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """Program and arguments that serve `self._directory` on `self._port`."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether clients can use the server now."""

    def _becomes_ready(self) -> bool:
        assert self._process is not None
        while time.monotonic() < self._deadline:
            if self._process.poll() is not None:
                return False
            if self._is_ready():
                return self._process.poll() is None
            time.sleep(_POLL_S)
        self.stop()
        raise ServerStartError(
            f"expected {self.name} to be ready within {self.ready_timeout_s:.0f} s, was not; "
            f"see {self._log}"
        )

    def _output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _port_taken(self) -> PortTakenError:
        return PortTakenError(
            f"expected port {self._fixed_port} on {HOST} to be free for {self.name}, "
            "was taken by another program; stop that program or choose another port"
        )

    def _start_error(self, output: str) -> ServerStartError | DataDirectoryError:
        return explain_failure(self.name, self._directory, self._log, output)


def explain_failure(
    name: str, directory: Path, log: Path, output: str
) -> ServerStartError | DataDirectoryError:
    """Turns what a server printed before it ended into one line that says what to do."""
    if _has(output, _DISK_FULL_MARKS):
        return DataDirectoryError(
            f"expected free space under {directory} for {name}, was none; "
            "free some or choose another data directory"
        )
    if _has(output, _READ_ONLY_MARKS):
        return DataDirectoryError(
            f"expected to write under {directory} for {name}, was refused; "
            "correct its owner or choose another data directory"
        )
    telling = [line for line in output.splitlines() if "ERROR" in line or "FATAL" in line]
    cause = (telling or output.splitlines() or ["no output"])[-1].strip()
    return ServerStartError(f"expected {name} to run, was: {cause}; see {log}")


def _has(text: str, marks: Sequence[str]) -> bool:
    return any(mark in text for mark in marks)
