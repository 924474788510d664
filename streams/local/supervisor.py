"""Keeps roles running: starts them, starts a dead one again, drains them at the end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import MyStocksError, UnavailableError
from streams.local.role_process import RoleProcess

FENCED_EXIT_STATUS = 75
"""A role that was fenced has a successor; starting it again would fence that one."""

_CONFIGURATION_EXIT_STATUS = 2
_UNAVAILABLE_EXIT_STATUS = UnavailableError.exit_code
_READY_TIMEOUT_S = 90.0
_DRAIN_TIMEOUT_S = 20.0
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 10.0
# A role that ran this long had no lasting problem: its next end counts as the first.
_HEALTHY_AFTER_S = 60.0
_POLL_S = 0.01


class RoleStartError(UnavailableError):
    """A role ended or did not become ready while the stack was started."""


class RoleConfigurationError(MyStocksError):
    """A role refused its settings."""

    exit_code = _CONFIGURATION_EXIT_STATUS


@dataclass(frozen=True)
class RoleStatus:
    """What is known of a role.

    Attributes:
        role: Its name.
        pid: Process id; None while no process runs.
        state: `starting`, `running`, `waiting` (to be started again), `fenced`, `failed` (its
            settings or state need a person), `stopped`.
        restarts: How often it was started again.
        metrics: URL of its metrics; None until it is ready.
        grpc: Address that it serves gRPC on; None where it does not, or is not ready.
    """

    role: str
    pid: int | None
    state: str
    restarts: int
    metrics: str | None
    grpc: str | None = None


class _Role:
    def __init__(self, name: str, start: Callable[[], RoleProcess]) -> None:
        self.name = name
        self.restarts = 0
        self.may_have_been_early = True
        self.state = "stopped"
        self.process: RoleProcess | None = None
        self._start = start
        self._backoff_s = _FIRST_BACKOFF_S
        self._start_at = 0.0

    def start(self) -> None:
        self.process = self._start()
        self.state = "starting"

    def check(self, say: Callable[[str], None]) -> None:
        if self.state == "waiting":
            if time.monotonic() >= self._start_at:
                self.restarts += 1
                self.start()
        elif self.process is not None and self.state in ("starting", "running"):
            status = self.process.exit_status()
            if status is not None:
                self._ended(self.process, status, say)
            elif self.process.ready is not None:
                self.state = "running"

    def _ended(self, process: RoleProcess, status: int, say: Callable[[str], None]) -> None:
        self.process = None
        how = f"killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
        if status == FENCED_EXIT_STATUS:
            self.state = "fenced"
            say(f"role {self.name} was fenced by a newer one and is not started again")
            return
        if status == _CONFIGURATION_EXIT_STATUS:
            self.state = "failed"
            say(f"role {self.name} {how} and is not started again: {process.last_words()}")
            return
        if time.monotonic() - process.started > _HEALTHY_AFTER_S:
            self._backoff_s = _FIRST_BACKOFF_S
        say(f"role {self.name} {how}, starting it again in {self._backoff_s:.1f} s")
        self.state = "waiting"
        self._start_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S)

    def status(self) -> RoleStatus:
        process = self.process
        ready = (process.ready if process else None) or {}
        return RoleStatus(
            role=self.name,
            pid=process.pid if process else None,
            state=self.state,
            restarts=self.restarts,
            metrics=str(ready["metrics"]) if ready.get("metrics") else None,
            grpc=str(ready["grpc"]) if ready.get("grpc") else None,
        )


class Supervisor:
    """Runs roles as child processes.

    Call `launch`, `wait_ready`, then `check` a few times a second, then `stop`.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str | Path]],
        env: Mapping[str, str],
        logs: Path,
        *,
        echo: Callable[[str, str], None] = lambda _role, _line: None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """Prepares roles that are not running yet.

        Args:
            commands: Program and arguments by role.
            env: The whole environment of every role.
            logs: Directory for one rotated file a role.
            echo: Called with (role, line) for everything that a role prints.
            say: Called with what happened to a role, in one sentence.
        """
        self._say = say
        self._roles = [
            _Role(name, _starter(name, command, env, logs, echo))
            for name, command in commands.items()
        ]

    def launch(self) -> None:
        """Starts all roles, perhaps before the servers they need are there.

        A role has seconds of work before it needs a server.
        """
        for role in self._roles:
            role.start()

    def wait_ready(self, timeout_s: float = _READY_TIMEOUT_S) -> None:
        """Waits until each role says that it is ready; call it once the servers are.

        A role that came too early for the servers and ended is started once more.

        Raises:
            RoleConfigurationError: A role refused its settings.
            RoleStartError: A role ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = list(self._roles)
        while waiting:
            for role in waiting:
                self._refuse_end(role)
                if time.monotonic() > deadline:
                    raise RoleStartError(
                        f"expected role {role.name} to be ready within {timeout_s:.0f} s, "
                        f"was not; see `mystocks logs {role.name}`"
                    )
                role.check(self._say)
            waiting = [role for role in waiting if role.state != "running"]
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Starts roles again that ended and whose waiting time is over."""
        for role in self._roles:
            role.check(self._say)

    def stop(self, timeout_s: float = _DRAIN_TIMEOUT_S) -> bool:
        """Lets all roles finish and commit, at the same time; True when all ended by themselves."""
        running = [role for role in self._roles if role.process is not None]
        for role in running:
            if role.process is not None:
                role.process.ask_to_stop()
        deadline = time.monotonic() + timeout_s
        drained = True
        for role in running:
            if role.process is not None:
                ended = role.process.stop(max(0.0, deadline - time.monotonic()))
                if not ended:
                    drained = False
                    self._say(f"role {role.name} did not end within {timeout_s:.0f} s, killed it")
                role.process = None
        for role in self._roles:
            role.state = "stopped"
        return drained

    def statuses(self) -> list[RoleStatus]:
        """What is known of each role."""
        return [role.status() for role in self._roles]

    def _refuse_end(self, role: _Role) -> None:
        process = role.process
        status = process.exit_status() if process else None
        if process is None or status is None:
            return
        if status == _UNAVAILABLE_EXIT_STATUS and role.may_have_been_early:
            role.may_have_been_early = False
            role.start()
            return
        error = RoleConfigurationError if status == _CONFIGURATION_EXIT_STATUS else RoleStartError
        raise error(
            f"expected role {role.name} to start, was exit status {status}: {process.last_words()}"
        )


def _starter(
    name: str,
    command: Sequence[str | Path],
    env: Mapping[str, str],
    logs: Path,
    echo: Callable[[str, str], None],
) -> Callable[[], RoleProcess]:
    return lambda: RoleProcess(name, command, env, logs / f"{name}.log", echo)
