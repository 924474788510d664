"""Servers for the tests: one real broker and one real Redis server for the whole test session."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says nothing on a busy machine.
settings.register_profile("mystocks", deadline=None)
settings.load_profile("mystocks")

_START_TIMEOUT_S = 180.0


@pytest.fixture(scope="session")
def _servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Endpoints of the session's servers; the first worker that asks starts them.

    A keeper process holds them, so that they outlive the worker; it ends with the session.
    """
    worker = hasattr(request.config, "workerinput")
    base = tmp_path_factory.getbasetemp()
    shared, session_pid = (base.parent, os.getppid()) if worker else (base, os.getpid())
    state = shared / "servers.json"
    with (shared / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            state.write_text(json.dumps(_start_keeper(shared, session_pid)))
    return json.loads(state.read_text())


def _start_keeper(shared: Path, session_pid: int) -> dict:
    output = shared / "servers.out"
    command = [sys.executable, "-m", "streams.local", "--quick-start", str(shared / "servers")]
    with output.open("w") as file:
        keeper = subprocess.Popen(
            [*command, "--while-pid", str(session_pid)],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while keeper.poll() is None and time.monotonic() < deadline:
        ready = [line for line in output.read_text().splitlines() if line.startswith("{")]
        if ready:
            return json.loads(ready[0]) | {"pid": keeper.pid}
        time.sleep(0.02)
    raise RuntimeError(f"the servers of the tests did not start: {output.read_text()}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stops the servers when the last test has ended (workers leave that to their controller)."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if hasattr(session.config, "workerinput") or factory is None:
        return
    state = factory.getbasetemp() / "servers.json"
    if state.exists():
        os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)


@pytest.fixture(scope="session")
def kafka_bootstrap(_servers: dict) -> str:
    """`host:port` of the session's broker; name topics and groups with the fixture `unique`."""
    return _servers["kafka"]


@pytest.fixture(scope="session")
def redis_url(_servers: dict) -> str:
    """URL of the session's Redis server; name keys with the fixture `unique`."""
    return _servers["redis"]


@pytest.fixture
def unique() -> str:
    """A prefix for names that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment without settings of the user; data go below the returned directory."""
    for name in list(os.environ):
        if name.startswith("MYSTOCKS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a broker first: they take longest, and none should be left to one worker."""
    items.sort(key=lambda item: item.get_closest_marker("kafka") is None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m gpu`` read only the GPU's test files: the machine may lack all else they import."""
    other = collection_path.suffix == ".py" and not collection_path.name.startswith("test_gpu_")
    return True if config.option.markexpr == "gpu" and other else None
