import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import streams.local.launcher as launcher_module
from streams.local.process import kill, spawn, terminate

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "time.sleep(60)",
]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not runs(pid)


@pytest.mark.parametrize("platform", ["linux", "other"])
def test_child_does_not_survive_a_killed_parent(platform):
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("the kernel sends death signals on Linux only")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, threading, time\n"
            "from streams.local import process\n"
            f"process.sys = type('Fake', (), dict(platform={platform!r}, "
            "executable=sys.executable))\n"
            "child = []\n"
            f"start = lambda: child.append(process.spawn({SLEEP!r}, output=subprocess.DEVNULL))\n"
            "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
            "time.sleep(0.3)\n"
            "assert child[0].poll() is None, 'it ended with the thread that asked for it'\n"
            "print(child[0].pid, flush=True)\n"
            "time.sleep(60)\n",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    assert runs(child)
    parent.kill()
    parent.wait()
    assert gone_within(child, 5)


def test_child_gets_its_arguments_environment_and_directory(tmp_path):
    script = "import os, sys; print(sys.argv[1], os.environ['A'], os.getcwd())"
    child = spawn(
        [sys.executable, "-c", script, "x y"],
        output=subprocess.PIPE,
        env={"A": "1"},
        directory=tmp_path,
    )
    assert child.stdout.read().decode().strip() == f"x y 1 {tmp_path}"
    assert child.wait() == 0


def test_terminate_lets_a_child_end_by_itself():
    child = spawn(SLEEP, output=subprocess.DEVNULL)
    assert terminate(child, 5)
    assert child.returncode == -signal.SIGTERM


def test_terminate_kills_a_child_that_does_not_listen():
    child = spawn(STUBBORN, output=subprocess.PIPE)
    child.stdout.readline()
    assert not terminate(child, 0.2)
    assert child.returncode == -signal.SIGKILL


def test_kill_of_an_ended_child_does_nothing():
    child = spawn([sys.executable, "-c", ""], output=subprocess.DEVNULL)
    child.wait()
    kill(child)
    assert child.returncode == 0


def test_watching_launcher_passes_signals_and_the_exit_status_on():
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    watched = [launcher_module.__file__, str(os.getpid()), "watch", sys.executable, "-c", script]
    launcher = subprocess.Popen([sys.executable, *watched], stdout=subprocess.PIPE)
    launcher.stdout.readline()
    launcher.terminate()
    assert launcher.wait(10) == 7
