"""The local stack: Apache Kafka and Valkey for one machine, below one data directory."""

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from streams.local.artifacts import Progress, ensure_jars
from streams.local.class_data import ensure_class_data
from streams.local.errors import DataDirectoryError
from streams.local.java import find_java
from streams.local.kafka import KafkaBroker
from streams.local.server import Server
from streams.local.temporary import TemporaryDirectory
from streams.local.valkey import ValkeyServer

LOCK_NAME = "stack.lock"
"""File in a data directory that a running stack holds a lock on."""

_MINIMUM_FREE_BYTES = 256 * 1024 * 1024
# Children of a killed parent die with it, but not within the same millisecond.
_LOCK_PATIENCE_S = 5.0
_LOCK_POLL_S = 0.05


@dataclass(frozen=True)
class Endpoints:
    """Where clients reach the servers.

    Attributes:
        kafka: Bootstrap servers as `host:port`; None when the stack runs no broker.
        redis: URL; None when the stack runs no Redis server.
    """

    kafka: str | None
    redis: str | None


class LocalStack:
    """Kafka and Redis servers that live as long as this object is started.

    A context manager: `with LocalStack(directory) as endpoints: ...`. The servers listen on the
    loopback interface, end when this process ends, and find their data again at the next start.
    The ports of the last run are used again when they are free.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ephemeral: bool = False,
        quick_start: bool = False,
        kafka: bool = True,
        redis: bool = True,
        kafka_port: int = 0,
        redis_port: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Prepares a stack that is not running yet.

        Args:
            data_dir: Directory for data and logs; made if missing. One stack at a time uses it.
            ephemeral: Keep the servers' data in a temporary directory that `stop` removes;
                logs still go to `data_dir`.
            quick_start: For stacks that live a minute or two: a broker that is quick at once,
                rather than quickest after a minute.
            kafka: Run a broker.
            redis: Run a Redis server.
            kafka_port: The port the broker must have; 0 lets it have any.
            redis_port: The port the Redis server must have; 0 lets it have any.
            progress: Told about downloads and other work of the first start.
        """
        self._data_dir = data_dir
        self._ephemeral = ephemeral
        self._quick_start = quick_start
        self._run_kafka = kafka
        self._run_redis = redis
        self._kafka_port = kafka_port
        self._redis_port = redis_port
        self._progress = progress
        self._servers: dict[str, Server] = {}
        self._lock: IO[str] | None = None
        self._temporary: TemporaryDirectory | None = None

    def start(self) -> Endpoints:
        """Starts the servers and waits until clients can use them.

        Raises:
            LocalStackError: A subclass says what is missing and what to do.
        """
        self.launch()
        return self.wait_ready()

    def launch(self) -> Endpoints:
        """Starts the servers; clients that wait for them can be started meanwhile.

        Raises:
            LocalStackError: A subclass says what is missing and what to do.
        """
        self._lock = lock_directory(self._data_dir)
        try:
            self._launch_servers(self._lock)
        except BaseException:
            self.stop()
            raise
        return self._endpoints()

    def wait_ready(self) -> Endpoints:
        """Waits until clients can use the servers.

        Returns:
            The endpoints; not those of `launch` if a port was taken meanwhile.

        Raises:
            LocalStackError: A subclass says what is missing and what to do.
        """
        try:
            for server in self._servers.values():
                server.wait_ready()
            self._remember_ports()
        except BaseException:
            self.stop()
            raise
        return self._endpoints()

    def stop(self) -> None:
        """Stops the servers; does nothing when they do not run."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
        if self._temporary is not None:
            self._temporary.remove()
            self._temporary = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def failure(self) -> str | None:
        """Why a server ended by itself; None while all run."""
        for server in self._servers.values():
            if (reason := server.failure()) is not None:
                return reason
        return None

    @property
    def is_started(self) -> bool:
        """Whether this object holds the data directory."""
        return self._lock is not None

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by server: `kafka`, `redis`."""
        return {name: server.pid for name, server in self._servers.items() if server.pid}

    def __enter__(self) -> Endpoints:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _endpoints(self) -> Endpoints:
        kafka, redis = self._servers.get("kafka"), self._servers.get("redis")
        return Endpoints(
            kafka=kafka.address if kafka else None,
            redis=f"redis://{redis.address}" if redis else None,
        )

    def _launch_servers(self, lock: IO[str]) -> None:
        directory = self._server_directory()
        logs = self._data_dir / "logs"
        keep_open = [lock.fileno(), *([self._temporary.lock] if self._temporary else [])]
        if self._run_redis:
            self._servers["redis"] = ValkeyServer(
                directory / "redis", logs / "redis.log", port=self._redis_port, keep_open=keep_open
            )
        if self._run_kafka:
            java = find_java()
            jars = ensure_jars(self._progress)
            self._servers["kafka"] = KafkaBroker(
                directory / "kafka",
                logs / "kafka.log",
                java=java,
                jars=jars,
                jvm_flags=ensure_class_data(java, jars, self._progress),
                quick_start=self._quick_start,
                port=self._kafka_port,
                keep_open=keep_open,
            )
        ports = self._last_ports()
        try:
            for name, server in self._servers.items():
                server.launch(ports.get(name, 0))
        except OSError as error:
            raise _unusable(directory, error) from error

    def _server_directory(self) -> Path:
        if self._ephemeral:
            self._temporary = TemporaryDirectory()
        directory = self._temporary.path if self._temporary else self._data_dir
        free = shutil.disk_usage(directory).free
        if free < _MINIMUM_FREE_BYTES:
            raise DataDirectoryError(
                f"expected {_MINIMUM_FREE_BYTES >> 20} MiB free under {directory}, "
                f"was {free >> 20} MiB; free some or choose another data directory"
            )
        return directory

    @property
    def _ports_file(self) -> Path:
        return self._data_dir / "run" / "ports.json"

    def _last_ports(self) -> dict[str, int]:
        try:
            return dict(json.loads(self._ports_file.read_text()))
        except (OSError, ValueError):
            return {}

    def _remember_ports(self) -> None:
        ports = self._last_ports() | {name: server.port for name, server in self._servers.items()}
        with contextlib.suppress(OSError):  # the next start takes any ports
            self._ports_file.parent.mkdir(parents=True, exist_ok=True)
            self._ports_file.write_text(json.dumps(ports))


def lock_directory(directory: Path) -> IO[str]:
    """Makes the directory and takes the lock that only one stack holds at a time.

    The servers inherit the lock, so it is free only when the last of them has ended.

    Raises:
        DataDirectoryError: Another stack holds the lock, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK_NAME).open("a+")
    except OSError as error:
        raise _unusable(directory, error) from error
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                owner = _owner(lock)
                lock.close()
                raise DataDirectoryError(
                    f"expected the data directory {directory} to be free, was in use by "
                    f"process {owner}; stop that one or choose another data directory"
                ) from None
            time.sleep(_LOCK_POLL_S)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _owner(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read().strip() or "unknown"


def _unusable(directory: Path, error: OSError) -> DataDirectoryError:
    return DataDirectoryError(
        f"expected a data directory that can be written, was {directory} ({error.strerror}); "
        "correct its owner, free some space or choose another data directory"
    )
