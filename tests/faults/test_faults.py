"""A short form of `python -m tests.faults`: one fault of each kind."""

import pytest

from tests.faults import scenarios
from tests.faults.world import World

SHORT = (
    scenarios.kill_one,
    scenarios.fill_with_garbage,
    scenarios.sleep_past_the_transaction,
    scenarios.poll_too_late,
    scenarios.scale_up_and_down,
    scenarios.kill_broker,
    scenarios.kill_redis,
    scenarios.two_with_one_identity,
)


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_every_row_exactly_once_through_a_row_of_faults(tmp_path):
    world = World(tmp_path, seed=4)
    try:
        world.start()
        for scenario in SHORT:
            scenario(world)
            world.prove()
        world.check()
    finally:
        world.close()
