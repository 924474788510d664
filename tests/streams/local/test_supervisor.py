import json
import os
import signal
import sys
import time

import pytest

from streams.local.supervisor import (
    FENCED_EXIT_STATUS,
    RoleConfigurationError,
    RoleStartError,
    Supervisor,
)

READY = 'print(json.dumps({"event": "ready", "role": "worker", "metrics": "http://x"}), flush=True)'
DRAINING = "signal.signal(signal.SIGTERM, lambda *_: (print('drained', flush=True), sys.exit(0)))"
WAIT = "time.sleep(60)"


def role(*statements: str) -> dict[str, list[str]]:
    script = "\n".join(["import json, os, signal, sys, time", *statements])
    return {"worker": [sys.executable, "-c", script]}


@pytest.fixture
def supervise(tmp_path):
    """Makes a supervisor that is stopped at the end; `.said` and `.echoed` are what it told."""
    supervisors = []

    def make(commands):
        said, echoed = [], []
        supervisor = Supervisor(
            commands,
            dict(os.environ),
            tmp_path,
            say=said.append,
            echo=lambda name, line: echoed.append((name, line)),
        )
        supervisor.said, supervisor.echoed = said, echoed
        supervisors.append(supervisor)
        return supervisor

    yield make
    for supervisor in supervisors:
        supervisor.stop(0)


def start(supervisor, **options):
    supervisor.launch()
    supervisor.wait_ready(**options)


def until(supervisor, condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition(supervisor.statuses()[0]):
        assert time.monotonic() < deadline, supervisor.statuses()
        supervisor.check()
        time.sleep(0.01)
    return supervisor.statuses()[0]


def test_start_waits_for_the_ready_line(supervise):
    supervisor = supervise(role("print('booting', flush=True)", "time.sleep(0.2)", READY, WAIT))
    start(supervisor)
    status = supervisor.statuses()[0]
    assert (status.state, status.restarts, status.metrics) == ("running", 0, "http://x")


def test_killed_role_is_started_again_and_said_so(supervise):
    supervisor = supervise(role(READY, WAIT))
    start(supervisor)
    first = supervisor.statuses()[0].pid
    os.kill(first, signal.SIGKILL)
    status = until(supervisor, lambda s: s.restarts == 1 and s.state == "running")
    assert status.pid != first
    assert supervisor.said == ["role worker killed by signal 9, starting it again in 0.2 s"]


def test_waiting_time_doubles_while_a_role_keeps_ending(supervise, tmp_path):
    mark = tmp_path / "started-once"
    once_healthy = f"first = not os.path.exists({str(mark)!r}); open({str(mark)!r}, 'w').close()"
    supervisor = supervise(
        role(once_healthy, READY, "time.sleep(0.1 if first else 0)", "sys.exit(3)")
    )
    start(supervisor)
    until(supervisor, lambda s: s.restarts == 2)
    waits = [message.rsplit(" in ", 1)[1] for message in supervisor.said]
    assert waits[:2] == ["0.2 s", "0.4 s"]


def test_fenced_role_is_never_started_again(supervise):
    supervisor = supervise(role(READY, "time.sleep(0.1)", f"sys.exit({FENCED_EXIT_STATUS})"))
    start(supervisor)
    until(supervisor, lambda s: s.state == "fenced")
    time.sleep(0.4)
    supervisor.check()
    assert supervisor.statuses()[0].state == "fenced"
    assert "fenced" in supervisor.said[0]


def test_role_that_refuses_its_settings_later_is_not_started_again(supervise):
    supervisor = supervise(
        role(READY, "time.sleep(0.1)", "print('error: expected x, was y')", "sys.exit(2)")
    )
    start(supervisor)
    until(supervisor, lambda s: s.state == "failed")
    assert supervisor.said[0].endswith("expected x, was y")


def test_role_that_ends_during_the_start_is_an_error_with_its_last_words(supervise):
    supervisor = supervise(role("print('error: expected a, was b')", "sys.exit(2)"))
    with pytest.raises(RoleConfigurationError, match=r"worker.*expected a, was b"):
        start(supervisor)


def test_role_that_came_too_early_for_the_servers_is_started_once_more(supervise, tmp_path):
    mark = tmp_path / "servers-are-there"
    supervisor = supervise(role(f"os.path.exists({str(mark)!r}) or sys.exit(69)", READY, WAIT))
    supervisor.launch()
    time.sleep(0.3)
    mark.touch()
    supervisor.wait_ready()
    assert supervisor.statuses()[0].restarts == 0
    assert supervisor.said == []


def test_role_that_cannot_reach_a_server_is_an_error(supervise):
    supervisor = supervise(role("print('error: no broker answered')", "sys.exit(69)"))
    with pytest.raises(RoleStartError, match="no broker answered"):
        start(supervisor)


def test_logged_error_is_preferred_as_last_words(supervise):
    entry = json.dumps({"level": "error", "event": "cannot restore", "error": "log deleted"})
    supervisor = supervise(role(f"print({entry!r})", "print('bye')", "sys.exit(1)"))
    with pytest.raises(RoleStartError, match="log deleted"):
        start(supervisor)


def test_role_that_never_gets_ready_is_an_error(supervise):
    supervisor = supervise(role(WAIT))
    with pytest.raises(RoleStartError, match="mystocks logs worker"):
        start(supervisor, timeout_s=0.3)


def test_stop_drains(supervise, tmp_path):
    supervisor = supervise(role(DRAINING, READY, WAIT))
    start(supervisor)
    assert supervisor.stop()
    assert supervisor.statuses()[0].state == "stopped"
    assert ("worker", "drained") in supervisor.echoed
    assert (tmp_path / "worker.log").read_text().endswith("drained\n")


def test_each_role_is_asked_once_to_stop_and_drains_at_its_own_pace(supervise):
    def draining(role, seconds):
        ready = json.dumps({"event": "ready", "role": role})
        return [
            "import signal, sys, time",
            "def drain(number, _frame):",
            "    signal.signal(number, signal.SIG_DFL)",
            f"    time.sleep({seconds})",
            "    print('drained', flush=True)",
            "    sys.exit(0)",
            "signal.signal(signal.SIGTERM, drain)",
            f"print({ready!r}, flush=True)",
            "time.sleep(60)",
        ]

    paces = {"quick": 0.1, "slow": 0.5}
    supervisor = supervise(
        {
            role: [sys.executable, "-c", "\n".join(draining(role, seconds))]
            for role, seconds in paces.items()
        }
    )
    start(supervisor)
    assert supervisor.stop()
    assert ("quick", "drained") in supervisor.echoed
    assert ("slow", "drained") in supervisor.echoed


def test_stop_kills_what_does_not_drain(supervise):
    supervisor = supervise(role("signal.signal(signal.SIGTERM, signal.SIG_IGN)", READY, WAIT))
    start(supervisor)
    assert not supervisor.stop(timeout_s=0.3)
    assert "killed it" in supervisor.said[-1]
