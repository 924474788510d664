"""Starts a role that a signal makes so slow that the group gives it up.

The main thread sleeps; the client library's own threads go on, so that the process stays a member
by its heartbeats, as one whose computation takes too long.
"""

import signal
import sys
import time

from mystocks.roles.__main__ import main

SLOW = signal.SIGUSR1


def be_slow(_number: int, _frame: object) -> None:
    from tests.faults.world import MAX_POLL_INTERVAL_S

    time.sleep(MAX_POLL_INTERVAL_S + 2.0)


if __name__ == "__main__":
    signal.signal(SLOW, be_slow)
    sys.exit(main(sys.argv[1:]))
