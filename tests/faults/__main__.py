"""Breaks a running system for minutes and proves every row after each fault.

    python -m tests.faults --seed 7 --minutes 10

Prints the faults in the order in which they happen; the same seed gives the same order. Exit
status 1 with the logs' directory if a row is missing, doubled or different.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.scenarios import SCENARIOS
from tests.faults.world import World


def main() -> int:
    """Runs; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--group-protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument("--only", choices=[scenario.__name__ for scenario in SCENARIOS])
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="mystocks-faults-"))
    world = World(directory, arguments.seed, arguments.group_protocol)
    try:
        world.start()
        end = time.monotonic() + arguments.minutes * 60
        while time.monotonic() < end:
            scenario = world.random.choice(SCENARIOS)
            if arguments.only:
                scenario = next(s for s in SCENARIOS if s.__name__ == arguments.only)
            began = time.monotonic()
            scenario(world)
            took = time.monotonic() - began
            rows = world.prove()
            print(f"{scenario.__name__:<28} {took:6.1f} s {rows:>12,} rows proved", flush=True)
        print(world.check(), flush=True)
    except AssertionError as error:
        print(f"FAILED: {error}\nlogs: {directory}", file=sys.stderr)
        return 1
    finally:
        world.close()
    print("every row exactly once, equal to the ticks, bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
