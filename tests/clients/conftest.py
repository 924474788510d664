"""`mystocks up --ephemeral` as a user starts it, shared by all plain clients of the test run."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.reflected import ReflectedClient

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 40.0


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The line that `mystocks up --json` prints; the last worker that uses it stops the stack."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    directory = shared / "plain-clients"
    directory.mkdir(exist_ok=True)
    users = directory / "users.json"
    with _locked(directory):
        state = json.loads(users.read_text()) if users.exists() else _start(directory)
        users.write_text(json.dumps(state | {"users": state["users"] + 1}))
    yield state["ready"]
    with _locked(directory):
        state = json.loads(users.read_text())
        users.write_text(json.dumps(state | {"users": state["users"] - 1}))
        if state["users"] == 1:
            users.unlink()
            _stop(state["pid"])


@pytest.fixture(scope="session")
def address(stack: dict) -> str:
    """`host:port` of the bridge: all that a plain client knows."""
    assert stack["grpc"], f"expected `mystocks up` to serve gRPC, was {stack}"
    return stack["grpc"]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[ReflectedClient]:
    """A client of this module."""
    with ReflectedClient(address) as connected:
        yield connected


@pytest.fixture
def symbol() -> str:
    """A symbol that no other test sends."""
    return f"P{uuid.uuid4().hex[:10].upper()}.US"


def _locked(directory: Path):
    lock = (directory / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _start(directory: Path) -> dict:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
    environment |= {
        "MYSTOCKS_DATA_DIR": str(directory / "data"),
        "XDG_STATE_HOME": str(directory / "state"),
    }
    output, errors = directory / "up.out", directory / "up.err"
    with output.open("w") as out, errors.open("w") as err:
        up = subprocess.Popen(
            [sys.executable, "-m", "mystocks.cli.main", "up", "--ephemeral", "--json"],
            env=environment,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not (line := output.read_text()).endswith("\n"):
        if up.poll() is not None or time.monotonic() > deadline:
            up.kill()
            raise RuntimeError(f"`mystocks up` did not start: {errors.read_text()}")
        time.sleep(0.05)
    return {"ready": json.loads(line), "pid": up.pid, "users": 0}


def _stop(pid: int) -> None:
    """Ends the stack; it may be the child of another worker, so only its lock is asked."""
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while _is_running(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError("`mystocks up` did not end")
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie of another worker has ended too
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
