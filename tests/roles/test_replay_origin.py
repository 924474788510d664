"""Where a replay begins: the origin of live, an archived snapshot, or cold; else it says so."""

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from mystocks.cli.verify_run import verify_features
from mystocks.replay_job import ReplayJob
from schemas.partitioner import partition_for
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from tests.roles.replay_rig import (
    DAY,
    SECOND,
    SYMBOLS,
    assert_same,
    count_of,
    messy_ticks,
    produce_timed,
    replay,
    rows_of,
    run_name,
    selected,
    ticks,
)
from tests.roles.rig import PARTITIONS
from tests.roles.test_lateness import await_idle

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

TICKS = 15_000
MIDDLE = DAY + 9_000 * SECOND


@pytest.fixture
def live(features):
    """A feature set that has computed some hours of ticks that carry their event time."""
    rig = features("", snapshot_interval_s=0.3)
    produce_timed(rig, ticks(TICKS))
    rig.start()
    rows = rig.await_rows(TICKS)
    assert rig.stop() == 0
    return rig, rows


def delete_ticks_before(rig, rows, time_ns: int) -> None:
    """Deletes the records of the source that are older, as retention would."""
    firsts = []
    for partition in range(PARTITIONS):
        times = rows.columns(partition)["event_time"]
        firsts.append(next(i for i, time in enumerate(times) if time >= time_ns))
    delete_before(rig, firsts)


def delete_messages_before(rig, messages, number: int) -> None:
    """Deletes the records of the first so many messages."""
    counts = [0] * PARTITIONS
    for symbol, _ in messages[:number]:
        counts[partition_for(symbol, PARTITIONS)] += 1
    delete_before(rig, counts)


def delete_before(rig, offsets: list[int]) -> None:
    """Deletes the records of the source below an offset of each partition."""
    admin = AdminClient({"bootstrap.servers": rig.kafka})
    places = [TopicPartition(rig.source, p, offset) for p, offset in enumerate(offsets)]
    for future in admin.delete_records(places).values():
        future.result(30)


def test_the_range_begins_an_hour_of_record_time_before_its_start(live, kafka_bootstrap):
    rig, rows = live
    job = replay(rig.settings, "middle", start_ns=MIDDLE)
    assert_same(rows, rows_of(kafka_bootstrap, job.output, count_of(rows, MIDDLE)), MIDDLE)
    report = verify_features(rig.settings, job.output)
    assert (report.gaps, report.doubles, report.disordered) == (0, 0, 0)


def test_a_replay_begins_at_the_newest_archived_snapshot(features, kafka_bootstrap):
    messages = ticks(TICKS)
    rig = features("", archive_state=False)
    produce_timed(rig, messages[:5_000])
    rig.start()
    rig.await_rows(5_000)
    assert rig.stop() == 0
    features_settings = rig.settings.features.model_copy(update={"archive_state": True})
    rig.settings = rig.settings.model_copy(update={"features": features_settings})
    rig.start()
    produce_timed(rig, messages[5_000:5_200])
    rig.await_rows(5_200)
    # A restart on the same day writes no second snapshot.
    assert rig.stop() == 0
    rig.start()
    produce_timed(rig, messages[5_200:])
    rows = rig.await_rows(TICKS)
    assert rig.stop() == 0
    # As many ticks as a snapshot of the first batch after five thousand makes unnecessary.
    delete_ticks_before(rig, rows, DAY + 4_900 * SECOND)
    start = DAY + 9_500 * SECOND
    job = replay(rig.settings, "archived", start_ns=start)
    replayed = rows_of(kafka_bootstrap, job.output, count_of(rows, start))
    assert_same(rows, replayed, start)
    with pytest.raises(RequestFailedError, match="archived snapshot"):
        replay(rig.settings, "too-early", start_ns=DAY + 6_000 * SECOND)


RULES = {"allowed_lateness_ms": 5000, "drop_duplicates": True, "snapshot_interval_s": 0.3}


def rows_taken(rig, sent: int) -> int:
    """Returns how many ticks got rows, once all were seen; some came late, some twice."""
    await_idle(rig)
    late, twice = (
        int(rig.metric(f"mystocks_{name}_ticks_total")) for name in ("late", "duplicate")
    )
    assert min(late, twice) > sent / 100
    return sent - late - twice


def test_what_live_dropped_as_late_or_doubled_is_dropped_again(features, kafka_bootstrap):
    rig = features("", **RULES)
    messages = messy_ticks(6_000, jumps=0.01)
    produce_timed(rig, messages)
    rig.start()
    rows = rig.await_rows(rows_taken(rig, len(messages)))
    assert rig.stop() == 0
    end = DAY + 4_000 * SECOND
    some = tuple(SYMBOLS[:5])
    for run, request in {
        "whole": {"start_ns": DAY - 30_000 * SECOND},
        "middle": {"start_ns": DAY + 2_000 * SECOND, "end_ns": end},
        "some": {"start_ns": DAY + 2_000 * SECOND, "end_ns": end, "symbols": some},
        "paced": {"start_ns": DAY + 2_000 * SECOND, "end_ns": end, "speed": 2000.0},
    }.items():
        job = replay(rig.settings, run, **request)
        wanted = [request.get(key) for key in ("start_ns", "end_ns", "symbols")]
        replayed = rows_of(kafka_bootstrap, job.output, count_of(rows, *wanted))
        assert_same(rows, replayed, *wanted)


def test_an_archived_snapshot_knows_what_is_late_and_what_was_there(features, kafka_bootstrap):
    messages = messy_ticks(12_000)
    cut = 5_000
    rig = features("", **RULES, archive_state=False)
    produce_timed(rig, messages[:cut])
    rig.start()
    await_idle(rig)
    assert rig.stop() == 0
    features_settings = rig.settings.features.model_copy(update={"archive_state": True})
    rig.settings = rig.settings.model_copy(update={"features": features_settings})
    produce_timed(rig, messages[cut : cut + 200])
    rig.start()
    await_idle(rig)
    produce_timed(rig, messages[cut + 200 :])
    await_idle(rig)
    assert rig.stop() == 0
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    rows = rig.await_rows(report.rows)
    assert len(rows) < len(messages) * 0.95
    start = DAY + 9_500 * SECOND
    # Nothing is left of what the state of the origin was made of.
    delete_messages_before(rig, messages, cut)
    job = replay(rig.settings, "archived", start_ns=start)
    assert_same(rows, rows_of(kafka_bootstrap, job.output, count_of(rows, start)), start)


def test_without_origin_it_says_so_and_cold_begins_with_empty_state(live, kafka_bootstrap):
    rig, rows = live
    delete_ticks_before(rig, rows, DAY + 3_000 * SECOND)
    with pytest.raises(RequestFailedError) as failure:
        replay(rig.settings, "lost", start_ns=MIDDLE)
    assert failure.value.code == Code.FAILED_PRECONDITION
    assert "--cold" in str(failure.value)
    assert failure.value.field == "cold"

    job = replay(rig.settings, "cold", start_ns=MIDDLE, cold=True)
    replayed = rows_of(kafka_bootstrap, job.output, count_of(rows, MIDDLE))
    replayed.assert_gap_free()
    for partition in range(PARTITIONS):
        wanted = selected(rows, partition, MIDDLE)
        columns = replayed.columns(partition)
        assert columns["price"] == wanted["price"]
        assert columns["ema_26"] != wanted["ema_26"]
        # What a window of ticks decides is the same as soon as the window lies in the range.
        by_symbol: dict[str, int] = {}
        for i, symbol in enumerate(columns["symbol"]):
            by_symbol[symbol] = by_symbol.get(symbol, 0) + 1
            if by_symbol[symbol] < 20:
                assert columns["sma_20"][i] == -(2**63)


def test_another_set_than_live_begins_with_the_log(live, kafka_bootstrap):
    rig, rows = live
    delete_ticks_before(rig, rows, DAY + 3_000 * SECOND)
    job = replay(rig.settings, "other", start_ns=MIDDLE, indicators=("sma_3",))
    replayed = rows_of(kafka_bootstrap, job.output, count_of(rows, MIDDLE))
    assert list(replayed.columns(0)) == ["symbol", "event_time", "price", "sma_3"]


def test_a_run_means_one_replay_and_its_output_holds_nothing_else(live, kafka_bootstrap):
    rig, rows = live
    job = replay(rig.settings, "once", start_ns=MIDDLE)
    count = count_of(rows, MIDDLE)
    replay(rig.settings, "once", start_ns=MIDDLE)
    rows_of(kafka_bootstrap, job.output, count)
    for request, field in [
        ({"run": run_name(rig.settings, "once"), "start_ns": MIDDLE + 1}, ""),
        ({"run": "taken", "start_ns": MIDDLE, "into": job.output}, "run"),
        ({"run": "live", "start_ns": MIDDLE, "into": rig.output}, "run"),
        ({"run": "source", "start_ns": MIDDLE, "into": rig.source}, "into"),
    ]:
        with pytest.raises(RequestFailedError) as failure:
            ReplayJob(rig.settings, ReplayRequest(**request)).run()
        assert failure.value.code == Code.FAILED_PRECONDITION
        assert failure.value.field == field
    into = f"{rig.output}.elsewhere"
    assert replay(rig.settings, "into", start_ns=MIDDLE, into=into).output == into
    assert_same(rows, rows_of(kafka_bootstrap, into, count), MIDDLE)
