"""A refused tick comes out after it was sent again, once, for those who refused it."""

import json

import pytest

from mystocks.cli.verify_run import verify_features
from schemas.partitioner import partition_for
from schemas.ticks.select_rows import select_rows
from streams.kafka.dead_letters import LetterFilter, list_letters, requeue
from tests.roles.replay_rig import assert_same, replay, rows_of
from tests.roles.rig import PARTITIONS
from tests.roles.test_bars import bars, newest  # noqa: F401 - a fixture among them
from tests.roles.test_replay_bars import replayed

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

TIME = 1_700_000_010_000_000_000
SECOND = 10**9


def test_ticks_refused_for_want_of_room_come_out_after_the_limit_was_raised(features):
    rig = features("", max_symbols=1)
    ticks = [{"symbol": f"R{i}", "event_time_ns": TIME + i, "price": 1.0 + i} for i in range(40)]
    rig.start()
    rig.produce((tick["symbol"], json.dumps(tick).encode()) for tick in ticks)
    letters = rig.dead_letters(36)
    rig.await_rows(4)
    assert rig.stop() == 0
    roomy = features("", max_symbols=100)
    result = requeue(
        roomy.settings,
        roomy.source,
        list_letters(roomy.settings, roomy.source, LetterFilter()),
        select_rows,
    )
    assert (len(result.sent), result.skipped) == (len(letters), [])
    roomy.start()
    rows = roomy.await_rows(40)
    rows.assert_gap_free()
    assert {symbol: row["price"] for symbol, row in rows.last().items()} == {
        tick["symbol"]: tick["price"] for tick in ticks
    }


def at_home_on(partition: int, prefix: str) -> str:
    """Returns a symbol that belongs on a partition."""
    return next(
        name for i in range(1000) if partition_for(name := f"{prefix}{i}", PARTITIONS) == partition
    )


def message(*ticks: tuple[str, int]) -> bytes:
    return json.dumps(
        [{"symbol": s, "event_time_ns": TIME + i * SECOND, "price": 1.0 + i} for s, i in ticks]
    ).encode()


def send_again(rig) -> tuple[int, list]:
    letters = list_letters(rig.settings, rig.source, LetterFilter())
    result = requeue(rig.settings, rig.source, letters, select_rows)
    return len(result.sent), result.skipped


def trades(bars_rig, symbol: str, count: int) -> int:
    """Returns how many ticks are in the bars of a symbol, once they are `count` of all symbols."""

    def enough(found) -> bool:
        return len(found) > 0 and newest(found)["trades"].sum() >= 2 * count

    # Each tick is in a bar of both intervals.
    found = bars_rig.bars(enough)
    found = newest(found[found["interval"] == "30s"])
    assert found["trades"].sum() == count
    return int(found[found["symbol"] == symbol]["trades"].sum())


def test_misplaced_ticks_go_to_their_partition_and_count_once_for_groups_that_took_them(
    features,
    bars,  # noqa: F811
    kafka_bootstrap,
):
    rig, bars_rig = features("", placement="strict"), bars(idle_timeout_s=1.0)
    here, lost, home = (at_home_on(p, bars_rig.name + s) for p, s in ((0, "H"), (1, "L"), (1, "E")))
    rig.start()
    bars_rig.start()
    for i in range(0, 10, 2):
        # A good tick and a misplaced one in the same message.
        rig.produce_on(0, here, message((here, i), (lost, i), (here, i + 1)))
    rig.dead_letters(5)
    assert rig.metric("mystocks_dead_letters_total", reason="misplaced", topic=rig.source) == 5
    assert trades(bars_rig, lost, 15) == 5
    assert send_again(rig) == (5, [])
    assert send_again(rig) == (0, [])
    rig.produce_on(1, home, message((home, 1)))
    rows = rig.await_rows(16)
    rows.assert_gap_free()
    assert sorted(rows.columns(1)["symbol"]) == [home] + [lost] * 5
    # Behind what was sent again on its partition, so that was passed over.
    assert trades(bars_rig, lost, 16) == 5
    rig.dead_letters(10)  # and five marks that they were sent
    assert rig.stop() == bars_rig.stop() == 0
    report = verify_features(rig.settings, rig.output)
    assert (report.ok, report.recomputed) == (True, 16), report.problems
    job = replay(rig.settings, "again", start_ns=TIME)
    assert_same(rows, rows_of(kafka_bootstrap, job.output, 16), TIME)
    job = replay(
        bars_rig.settings, f"{bars_rig.name}again", start_ns=TIME, end_ns=TIME + 3600 * SECOND,
        bars="30s",
    )  # fmt: skip
    assert int(replayed(kafka_bootstrap, job.output)["trades"].sum()) == 16


def test_what_one_group_refuses_again_and_again_changes_nothing_for_the_other(
    features,
    bars,  # noqa: F811
):
    rig, bars_rig = features("", snapshot_interval_s=0.3), bars(max_symbols=1, idle_timeout_s=1.0)
    first, second = (at_home_on(2, bars_rig.name + s) for s in ("A", "B"))
    rig.start()
    bars_rig.start()
    rig.produce_on(2, first, message((first, 0), (second, 0), (second, 1)))
    rig.await_rows(3)
    rig.dead_letters(1)
    for attempt in (1, 2):
        assert send_again(rig) == (1, [])
        # The letter, and for each attempt a mark and the next letter.
        rig.dead_letters(1 + 2 * attempt)
    rig.kill()
    rig.start()
    rig.produce_on(2, first, message((first, 2)))
    rig.await_rows(4).assert_gap_free()
    assert verify_features(rig.settings, rig.output).ok
