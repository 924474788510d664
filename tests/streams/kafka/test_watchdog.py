"""A call that never returns does not stop the stream for longer than a bound."""

import subprocess
import sys
import threading

from streams.kafka.errors import RESTART_EXIT_CODE
from streams.kafka.watchdog import Watchdog


def test_a_call_that_does_not_return_is_given_up():
    given_up: list[str] = []
    hung = threading.Event()

    def give_up(what: str, seconds: float) -> None:
        given_up.append(what)
        hung.set()

    Watchdog(0.1, give_up)("commit", lambda: hung.wait(10))
    assert given_up == ["commit"]


def test_calls_that_return_are_left_alone():
    given_up: list[str] = []
    watch = Watchdog(5.0, lambda what, _seconds: given_up.append(what))
    for _ in range(1000):
        watch("commit", lambda: None)
    assert given_up == []


def test_a_closed_one_leaves_no_thread_behind():
    before = set(threading.enumerate())
    watch = Watchdog()
    watch("commit", lambda: None)
    (thread,) = set(threading.enumerate()) - before
    watch.close()
    thread.join(10)
    assert not thread.is_alive()


def test_the_process_ends_with_the_code_that_asks_for_a_new_one():
    program = (
        "import time; from streams.kafka.watchdog import Watchdog;"
        "Watchdog(0.1)('x', lambda: time.sleep(60))"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert ended.returncode == RESTART_EXIT_CODE
