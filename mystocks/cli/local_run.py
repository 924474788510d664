"""A running system on this machine: servers, topics and roles, started and stopped as one."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from schemas.settings import Settings
from streams.local.artifacts import Progress
from streams.local.errors import ServerStartError
from streams.local.ports import free_port
from streams.local.run_state import RunState, announce, remove_state, write_state
from streams.local.stack import Endpoints, LocalStack
from streams.local.supervisor import Supervisor

ROLE_COMMANDS: Mapping[str, Sequence[str]] = {
    role: (sys.executable, "-m", "mystocks.roles", role)
    for role in ("features", "bars", "compute", "replay", "bridge")
}


class LocalRun:
    """Servers that are not configured, all topics, and the roles.

    Call `start`, then `check` a few times a second, then `stop`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ephemeral: bool = False,
        roles: Mapping[str, Sequence[str]] | None = None,
        progress: Progress | None = None,
        echo: Callable[[str, str], None] = lambda _role, _line: None,
        say: Callable[[str], None] = lambda _message: None,
    ) -> None:
        """Prepares a system that is not running yet.

        Args:
            settings: What is configured; a server without an address is started here.
            ephemeral: Keep the servers' data only until `stop`, and serve gRPC on a free port
                unless one is configured.
            roles: Program and arguments by role; `ROLE_COMMANDS` by default.
            progress: Told about downloads and other work of the first start.
            echo: Called with (role, line) for everything that a role prints.
            say: Called with what happened to a role, in one sentence.
        """
        self._settings = _with_free_port(settings) if ephemeral else settings
        self._roles = ROLE_COMMANDS if roles is None else roles
        self._echo = echo
        self._say = say
        self._supervisor: Supervisor | None = None
        self._stack = LocalStack(
            settings.data_dir,
            ephemeral=ephemeral,
            quick_start=ephemeral,
            kafka=settings.kafka.bootstrap_servers is None,
            redis=settings.redis.url is None,
            progress=progress,
        )
        self._state = RunState(
            pid=os.getpid(),
            data_dir=str(settings.data_dir),
            kafka=settings.kafka.bootstrap_servers,
            redis=settings.redis.url.get_secret_value() if settings.redis.url else None,
            grpc=None,
            started=time.time(),
            ready=False,
        )

    @property
    def state(self) -> RunState:
        """What `status` shows."""
        return self._state

    @property
    def settings(self) -> Settings:
        """The settings with the addresses of the servers filled in (once started)."""
        settings = self._settings
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": self._state.kafka})
        redis = type(settings.redis).model_validate(
            settings.redis.model_dump() | {"url": self._state.redis}
        )
        return settings.model_copy(update={"kafka": kafka, "redis": redis})

    def start(self) -> RunState:
        """Starts everything and waits until every role is ready.

        Raises:
            MyStocksError: A subclass says what is missing and what to do; nothing is left running.
        """
        try:
            self._use(self._stack.launch())
            announce(self._settings.data_dir)
            self._supervisor = self._launch_roles()
            if self._use(self._stack.wait_ready()):
                self._supervisor.stop()
                self._supervisor = self._launch_roles()
            self._create_topics()
            self._supervisor.wait_ready()
            self._update(ready=True)
            self._publish()
        except BaseException:
            self.stop()
            raise
        return self._state

    def check(self) -> None:
        """Starts dead roles again and publishes changes.

        Raises:
            ServerStartError: An embedded server ended by itself.
        """
        if (reason := self._stack.failure()) is not None:
            raise ServerStartError(reason)
        if self._supervisor is not None:
            self._supervisor.check()
        self._publish()

    def stop(self) -> bool:
        """Drains the roles, then stops the servers; True when every role ended by itself."""
        drained = True
        try:
            if self._supervisor is not None:
                drained = self._supervisor.stop()
        finally:
            if self._stack.is_started:
                remove_state(self._settings.data_dir)
            self._stack.stop()
        return drained

    def _use(self, endpoints: Endpoints) -> bool:
        """Takes over the addresses of embedded servers; True if that changed any."""
        before = self._state
        self._update(
            kafka=endpoints.kafka or self._state.kafka,
            redis=endpoints.redis or self._state.redis,
            servers=self._stack.pids,
        )
        return (before.kafka, before.redis) != (self._state.kafka, self._state.redis)

    def _create_topics(self) -> None:
        from schemas.topics import topic_specs
        from streams.kafka.admin import ensure_topics

        settings = self.settings
        ensure_topics(settings, [spec for spec in topic_specs(settings) if not spec.is_pattern])

    def _launch_roles(self) -> Supervisor:
        """Starts the roles: they import and compile while the servers start."""
        supervisor = Supervisor(
            self._roles,
            self._environment(),
            self._settings.data_dir / "logs",
            echo=self._echo,
            say=self._say,
        )
        supervisor.launch()
        return supervisor

    def _environment(self) -> dict[str, str]:
        environment = os.environ | self._settings.as_environment()
        environment["MYSTOCKS_DATA_DIR"] = str(self._settings.data_dir)
        if self._state.kafka:
            environment["MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS"] = self._state.kafka
        if self._state.redis:
            environment["MYSTOCKS_REDIS__URL"] = self._state.redis
        return environment

    def _publish(self) -> None:
        roles = (
            [asdict(status) for status in self._supervisor.statuses()] if self._supervisor else []
        )
        if roles != self._state.roles:
            # While a bridge is started again its old address is the best guess.
            addresses = [role["grpc"] for role in roles if role["grpc"]]
            self._update(roles=roles, grpc=addresses[0] if addresses else self._state.grpc)

    def _update(self, **changes: object) -> None:
        self._state = RunState(**(asdict(self._state) | changes))
        with contextlib.suppress(OSError):  # a full disk: roles and servers say so themselves
            write_state(self._state)


def _with_free_port(settings: Settings) -> Settings:
    """Lets the bridge have a port of its own, the same one when it is started again."""
    if "port" in settings.grpc.model_fields_set:
        return settings
    grpc = settings.grpc.model_copy(update={"port": free_port()})
    return settings.model_copy(update={"grpc": grpc})


def ready_line(state: RunState, settings: Settings) -> dict[str, object]:
    """What `mystocks up --json` prints when everything is ready.

    Args:
        state: Of the running system.
        settings: Those it runs with; the password of the Redis URL is left out.
    """
    return {
        "ready": True,
        "kafka": state.kafka,
        "redis": settings.redis.redacted_url(),
        "grpc": state.grpc,
        "metrics": {role["role"]: role["metrics"] for role in state.roles if role["metrics"]},
    }


def log_file(data_dir: Path, name: str) -> Path:
    """Where a role or an embedded server logs."""
    return data_dir / "logs" / f"{name}.log"
