"""A replay computes what live computed, bit for bit, over any range, each row once."""

import pytest

from tests.roles.replay_rig import (
    DAY,
    SECOND,
    SYMBOLS,
    assert_same,
    count_of,
    replay,
    rows_of,
    run_name,
    ticks,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

TICKS = 12_000


@pytest.fixture
def live(features):
    """A feature set that has computed some hours, in three lives with different batches."""
    rig = features("", snapshot_interval_s=0.3)
    messages = ticks(TICKS)
    rig.start()
    for third in range(3):
        rig.produce(messages[third * TICKS // 3 : (third + 1) * TICKS // 3])
    rows = rig.await_rows(TICKS)
    assert rig.stop() == 0
    return rig, rows


def test_any_range_and_choice_equals_live_bit_for_bit(live, kafka_bootstrap):
    rig, rows = live
    middle = {"start_ns": DAY + 4000 * SECOND, "end_ns": DAY + 7000 * SECOND}
    some = (SYMBOLS[3], SYMBOLS[7], "UNKNOWN")
    for run, request in {
        "whole": {"start_ns": DAY - 60 * SECOND},
        "middle": middle,
        "some": {**middle, "symbols": some},
        "later": {"start_ns": DAY + 11_000 * SECOND},
        "fast": {**middle, "speed": 3600.0 * 1000},
    }.items():
        job = replay(rig.settings, run, **request)
        assert job.output == f"{rig.output}.replay.{run_name(rig.settings, run)}"
        wanted = [request.get(key) for key in ("start_ns", "end_ns", "symbols")]
        replayed = rows_of(kafka_bootstrap, job.output, count_of(rows, *wanted))
        assert_same(rows, replayed, *wanted)
        assert job.progress.fraction == 1.0
        assert job.progress.rows == len(replayed)
