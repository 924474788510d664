"""What other processes can know of a running stack: a file below its data directory.

A stack counts as running while it holds the lock of its data directory, so a file that a killed
stack left behind deceives nobody.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from streams.local.stack import LOCK_NAME


@dataclass(frozen=True)
class RunState:
    """A stack as it stands in `run/state.json`.

    Attributes:
        pid: Process id of `mystocks up`.
        data_dir: Its data directory.
        kafka: Bootstrap servers.
        redis: URL.
        grpc: Address of the gRPC API; None while there is none.
        started: Unix time in seconds.
        ready: Whether all roles were ready once.
        servers: Process ids of the embedded servers by name.
        roles: One object a role: role, pid, state, restarts, metrics.
    """

    pid: int
    data_dir: str
    kafka: str | None
    redis: str | None
    grpc: str | None
    started: float
    ready: bool
    servers: dict[str, int] = field(default_factory=dict)
    roles: list[dict[str, Any]] = field(default_factory=list)


def write_state(state: RunState) -> None:
    """Publishes the state of the running stack."""
    path = _state_file(Path(state.data_dir))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.touch(mode=0o600)  # a Redis URL may hold a password
    partial.write_text(json.dumps(asdict(state)))
    partial.replace(path)


def read_state(data_dir: Path) -> RunState | None:
    """Returns the state of the stack that uses this data directory; None if none runs."""
    try:
        values = json.loads(_state_file(data_dir).read_text())
        state = RunState(**values)
        return state if _lock_owner(data_dir) == state.pid else None
    except (OSError, ValueError, TypeError):
        return None


def remove_state(data_dir: Path) -> None:
    """Removes what `write_state` and `announce` wrote."""
    for path in (_state_file(data_dir), _announcement(data_dir)):
        path.unlink(missing_ok=True)


def announce(data_dir: Path) -> None:
    """Lets `running_stacks` find a stack whatever its data directory is."""
    path = _announcement(data_dir)
    with contextlib.suppress(OSError):  # a convenience: the stack works without it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(data_dir))


def running_stacks() -> list[RunState]:
    """Returns the user's running stacks on this machine."""
    return list(_announced())


def _announced() -> Iterator[RunState]:
    for path in sorted(_announcements().glob("*.path")):
        state = read_state(Path(path.read_text()))
        if state is None:
            path.unlink(missing_ok=True)
        else:
            yield state


def _announcement(data_dir: Path) -> Path:
    digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]
    return _announcements() / f"{digest}.path"


def _announcements() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path("~/.local/state").expanduser()) / "mystocks" / "running"


def _state_file(data_dir: Path) -> Path:
    return data_dir / "run" / "state.json"


def _lock_owner(data_dir: Path) -> int | None:
    with (data_dir / LOCK_NAME).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(lock.read())
    return None
