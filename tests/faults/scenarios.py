"""The faults: each breaks something and mends only what a supervisor would mend.

Every function takes the world while ticks flow, and returns when rows flow again.
"""

import signal
import time
from collections.abc import Callable

from streams.kafka.errors import FENCED_EXIT_CODE
from tests.faults.slow_role import SLOW
from tests.faults.world import (
    BROKER_SESSION_S,
    MAX_POLL_INTERVAL_S,
    PARTITIONS,
    RECOVERY_BOUND_S,
    SESSION_TIMEOUT_S,
    TRANSACTION_TIMEOUT_S,
    Role,
    World,
)


def kill_one(world: World) -> None:
    """kill -9 of one process; it is started again at once."""
    world.random.choice(world.roles).kill()
    world.await_progress()


def kill_all(world: World) -> None:
    """kill -9 of every process at the same time."""
    for role in world.roles:
        role.send(signal.SIGKILL)
    for role in world.roles:
        role.kill()
    world.await_progress()


def kill_during_restore(world: World) -> None:
    """kill -9 again and again before the restore of the last life can be through."""
    role = world.random.choice(world.roles)
    for _ in range(3):
        role.kill()
        role.start()
        time.sleep(world.random.uniform(0.5, 2.5))
    world.await_progress()


def sleep_past_the_session(world: World) -> None:
    """SIGSTOP until the group has given the partitions away, then SIGCONT: a zombie."""
    role = world.random.choice(world.roles)
    role.send(signal.SIGSTOP)
    time.sleep(SESSION_TIMEOUT_S + world.random.uniform(0.5, 1.5))
    role.send(signal.SIGCONT)
    world.await_progress()


def sleep_past_the_transaction(world: World) -> None:
    """SIGSTOP until the broker has aborted the open transaction, but not the session."""
    role = world.random.choice(world.roles)
    role.send(signal.SIGSTOP)
    time.sleep(TRANSACTION_TIMEOUT_S + 0.5)
    role.send(signal.SIGCONT)
    world.await_progress()


def poll_too_late(world: World) -> None:
    """A process that beats but does not poll is thrown out, and comes back."""
    world.random.choice(world.roles).send(SLOW)
    time.sleep(MAX_POLL_INTERVAL_S + world.random.uniform(0.0, 3.0))
    world.await_progress()


def scale_up_and_down(world: World) -> None:
    """1 → 3 → 1 processes, the second step while the first one's restores may still run."""
    world.scale(3)
    time.sleep(world.random.uniform(0.0, 4.0))
    world.scale(1)
    world.await_progress()


def kill_while_scaling(world: World) -> None:
    """A process dies for good in the middle of a rebalance."""
    world.scale(2)
    time.sleep(world.random.uniform(1.0, 3.0))
    world.roles[-1].kill()
    time.sleep(world.random.uniform(0.0, 1.0))
    world.scale(1)
    world.await_progress()


def kill_broker(world: World) -> None:
    """kill -9 of the broker and a restart on the same data."""
    world.kill_broker()
    time.sleep(world.random.uniform(0.0, 1.5))
    world.start_broker()
    world.await_progress()


def freeze_broker(world: World) -> None:
    """SIGSTOP of the broker until the cluster has taken it for dead, then SIGCONT."""
    world.freeze_broker(BROKER_SESSION_S + world.random.uniform(0.5, 1.5))
    world.await_progress()


def kill_redis(world: World) -> None:
    """kill -9 of Redis, which comes back empty; the stream does not wait for it."""
    world.kill_redis()
    world.await_progress(rows=1000)
    world.start_redis()
    world.await_progress(rows=1000)


def fill_with_garbage(world: World) -> None:
    """A partition full of bytes that are no ticks."""
    world.send_garbage(world.random.randrange(PARTITIONS), 3000)
    world.await_progress()


def two_with_one_identity(world: World) -> None:
    """A second process with the same slot: one of the two is fenced, no row is doubled."""
    twin = Role(world.settings, world.roles[0].slot, world.directory / "features.twin.log")
    twin.start()
    pair = (world.roles[0], twin)
    deadline = time.monotonic() + RECOVERY_BOUND_S
    while not (fenced := [role for role in pair if role.exit_code == FENCED_EXIT_CODE]):
        assert time.monotonic() < deadline, f"none of the two was fenced; {world.logs()}"
        for role in pair:
            if not role.running:
                # Past saving, since the other one has its place in the group: started again.
                world.note_exit(role.exit_code or 0)
                role.start()
        time.sleep(0.1)
    assert len(fenced) == 1, f"both were fenced; {world.logs()}"
    twin.kill()
    world.await_progress()


SCENARIOS: tuple[Callable[[World], None], ...] = (
    kill_one,
    kill_all,
    kill_during_restore,
    sleep_past_the_session,
    sleep_past_the_transaction,
    poll_too_late,
    scale_up_and_down,
    kill_while_scaling,
    kill_broker,
    freeze_broker,
    kill_redis,
    fill_with_garbage,
    two_with_one_identity,
)
