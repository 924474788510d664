"""A replay of ticks keeps the pace of the log, also where the log has ticks of a broken clock."""

import threading

import pytest

from grpc_bridge.replay_ticks import TickReading
from mystocks.v1.realtime_pb2 import ReplayMarketDataResponse
from schemas.replay import ReplayRequest
from tests.roles.conftest import features  # noqa: F401 - a fixture
from tests.roles.replay_rig import DAY, SECOND, produce_timed, ticks

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def test_a_tick_a_day_ahead_does_not_hold_up_those_behind_it(features):  # noqa: F811
    rig = features("")
    messages = ticks(200)
    symbol, _ = messages[100]
    ahead = DAY + 86_400 * SECOND
    messages.insert(
        100, (symbol, b'{"symbol":"%b","event_time_ns":%d,"price":1}' % (symbol.encode(), ahead))
    )
    produce_timed(rig, messages)
    found: list[int] = []

    def take(response: bytes) -> None:
        batch = ReplayMarketDataResponse.FromString(response).ticks
        found.extend(tick.event_time_ns for tick in batch.ticks)

    stopping = threading.Event()
    request = ReplayRequest(run="paced", start_ns=DAY - 60 * SECOND, speed=200.0)
    reading = TickReading(rig.settings, request, take, stopping)
    thread = threading.Thread(target=reading.run)
    thread.start()
    # At this speed the day takes seven minutes, and all the rest a second.
    thread.join(60)
    ended = not thread.is_alive()
    stopping.set()
    thread.join(30)
    assert ended
    assert len(found) == 201
