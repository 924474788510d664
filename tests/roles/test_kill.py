"""kill -9 in the middle of the stream: every row identity once, bit-equal to a quiet run."""

import random
import threading
import time

import numpy as np
import pytest

from tests.roles.rig import PARTITIONS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

TICKS, KILLS, SYMBOLS = 100_000, 5, 300


def messages() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(7)
    symbols = [f"K{i:03d}" for i in range(SYMBOLS)]
    chosen = rng.integers(0, SYMBOLS, TICKS)
    prices = np.round(50 + np.cumsum(rng.normal(0, 0.01, TICKS)), 4)
    return [
        (
            symbols[c],
            b'{"symbol":"%b","event_time_ns":%d,"price":%.4f,"size":1}'
            % (symbols[c].encode(), 1_700_000_000_000_000_000 + i, prices[i]),
        )
        for i, c in enumerate(chosen.tolist())
    ]


def kill_while_producing(rig, ticks) -> None:
    """Produces all ticks at a steady pace while the role dies and starts again."""
    random_source = random.Random(11)
    rig.start()
    running = threading.Event()
    running.set()

    def produce_slowly() -> None:
        for start in range(0, len(ticks), 500):
            running.wait()
            rig.produce(ticks[start : start + 500])
            time.sleep(0.02)

    producer = threading.Thread(target=produce_slowly)
    producer.start()
    for _ in range(KILLS):
        # Each life commits some rows before it ends.
        deadline = time.monotonic() + 30
        while rig.metric("mystocks_rows_out_total") < 3_000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(random_source.random() * 0.5)
        rig.kill()
        running.clear()
        rig.start()
        running.set()
    assert producer.is_alive(), "the ticks were through before the last kill"
    producer.join()


def test_every_row_exactly_once_after_five_kills(features):
    rig = features("", snapshot_interval_s=0.5)
    quiet = features("quiet", source_topic=rig.source)
    kill_while_producing(rig, messages())
    rows = rig.await_rows(TICKS)
    rows.assert_gap_free()
    quiet.start()
    expected = quiet.await_rows(TICKS)
    for partition in range(PARTITIONS):
        assert rows.columns(partition) == expected.columns(partition)
    assert rig.stop() == 0


def test_at_least_once_repeats_rows_after_a_kill_and_loses_none(features):
    rig = features("", snapshot_interval_s=0.5, guarantee="at_least_once")
    quiet = features("quiet", source_topic=rig.source)
    kill_while_producing(rig, messages())
    quiet.start()
    expected = quiet.await_rows(TICKS)
    rows = rig.await_identities({p: len(expected.numbers(p)) for p in range(PARTITIONS)})
    for partition in range(PARTITIONS):
        numbers = rows.numbers(partition)
        # A repetition goes back to an earlier row and from there on without a gap.
        assert (np.diff(numbers) <= 1).all()
        assert np.array_equal(np.unique(numbers), np.arange(len(expected.numbers(partition))))
        columns, wanted = rows.columns(partition), expected.columns(partition)
        for name, values in columns.items():
            assert values == [wanted[name][number] for number in numbers.tolist()]
    assert rig.stop() == 0
