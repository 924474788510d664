"""`mystocks` as a user starts it, and `mystocks up` with roles that a test scripts."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

FAKE_ROLE = """
import json, os, signal, threading
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
ready = {"event": "ready", "role": "features", "metrics": "http://127.0.0.1:9"}
print("redis is", os.environ["MYSTOCKS_REDIS__URL"], flush=True)
print(json.dumps(ready), flush=True)
stopping.wait(60)
print("drained", flush=True)
"""

UP_WITH_ROLES = """
import json, sys
from mystocks.cli import local_run, main
local_run.ROLE_COMMANDS = json.loads(sys.argv.pop(1))
main.main()
"""


class RunningUp:
    """A started `mystocks up --json`."""

    def __init__(self, arguments: list[str], environment: dict[str, str], roles: dict | None):
        if roles is None:
            command = [sys.executable, "-m", "mystocks.cli.main"]
        else:
            command = [sys.executable, "-c", UP_WITH_ROLES, json.dumps(roles)]
        self.process = subprocess.Popen(
            [*command, "up", "--json", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def end(self, timeout_s: float = 75.0) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, errors


@pytest.fixture
def cli_environment(own_environment: Path) -> dict[str, str]:
    """Environment variables of a user who has set nothing; data below a temporary directory."""
    return {name: value for name, value in os.environ.items() if name != "COLUMNS"}


@pytest.fixture
def up_with_roles() -> str:
    """A script that runs `mystocks` with the roles (JSON: name → command) of its argument."""
    return UP_WITH_ROLES


@pytest.fixture
def mystocks(cli_environment):
    """Runs `mystocks` with the given arguments and returns the finished process."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "mystocks.cli.main", *arguments],
            env=cli_environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def start_up(cli_environment) -> Iterator:
    """Starts `mystocks up --json`; with a fake features role unless `roles` says otherwise."""
    started = []

    def start(*arguments: str, roles: dict | None = None, real: bool = False, **variables: str):
        fake = {"features": [sys.executable, "-c", FAKE_ROLE]}
        up = RunningUp(
            list(arguments), cli_environment | variables, None if real else roles or fake
        )
        started.append(up.process)
        return up

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def until():
    """Waits until a condition is true and returns its value."""

    def wait(condition, timeout_s: float = 15.0):
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.05)
        return value

    return wait
