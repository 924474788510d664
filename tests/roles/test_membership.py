"""Members that are too slow, come back in time, or move under either group protocol."""

import time

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from mystocks.cli.verify_run import verify_features
from mystocks.roles.features import build
from streams.kafka.errors import PartitionCountError
from streams.metrics import LoopMetrics

pytestmark = pytest.mark.kafka

TIME = 1_700_000_000_000_000_000


def ticks(first: int, count: int) -> list[tuple[str, bytes]]:
    return [
        (
            f"M{i % 40:02d}",
            b'{"symbol":"M%02d","event_time_ns":%d,"price":%.2f}'
            % (i % 40, TIME + i, 10 + i * 7 % 100 / 10),
        )
        for i in range(first, first + count)
    ]


def assert_exact(rig, count: int) -> None:
    rig.await_rows(count).assert_gap_free()
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert report.recomputed == count, report.notes


def test_a_loop_that_does_not_poll_in_time_loses_its_partitions_and_no_row(features):
    rig = features("", group={"session_timeout_ms": 1000, "max_poll_interval_ms": 1500})
    loop = build(rig.settings, f"{rig.settings.features.name}.0", LoopMetrics())
    loop.start()
    rig.produce(ticks(0, 3000))
    deadline = time.monotonic() + 30
    while loop._metrics.registry.get_sample_value("mystocks_rows_out_total") != 3000:
        loop.step()
        assert time.monotonic() < deadline
    epoch = loop._assignment.epoch
    rig.produce(ticks(3000, 3000))
    loop.step()
    time.sleep(4)
    rig.produce(ticks(6000, 3000))
    while loop._metrics.registry.get_sample_value("mystocks_rows_out_total") < 9000:
        loop.step()
        assert time.monotonic() < deadline
    assert loop._assignment.epoch > epoch
    assert_exact(rig, 9000)
    loop.stop()
    loop._drain()
    loop._output.close()
    loop._assignment.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_processes_come_and_go_under_either_protocol(features, protocol):
    group = {"group_protocol": protocol, "session_timeout_ms": 3000}
    first = features("", group=group, snapshot_interval_s=0.5)
    second = features("", group=group, snapshot_interval_s=0.5)
    first.start()
    first.produce(ticks(0, 4000))
    second.start()
    first.produce(ticks(4000, 4000))
    deadline = time.monotonic() + 30
    sent = 8000
    while second.metric("mystocks_rows_out_total") == 0:
        assert time.monotonic() < deadline, "the second process got no partition"
        first.produce(ticks(sent, 400))
        sent += 400
        time.sleep(0.1)
    assert second.stop() == 0
    first.produce(ticks(sent, 4000))
    assert_exact(first, sent + 4000)
    assert first.stop() == 0


def test_a_restart_within_the_session_moves_no_partition(features):
    group = {"session_timeout_ms": 20_000}
    first = features("", group=group)
    second = features("", group=group)
    first.start()
    second.start()
    first.produce(ticks(0, 4000))
    first.await_rows(4000)
    moves = assignments(first)
    second.kill()
    first.produce(ticks(4000, 2000))
    second.start()
    first.produce(ticks(6000, 2000))
    assert_exact(first, 8000)
    assert assignments(first) == moves


def assignments(rig) -> int:
    return sum('"event": "assigned"' in line for line in rig.lines)


def test_a_topic_that_is_enlarged_while_processes_run_stops_all_of_them(features):
    rig = features("", group={"session_timeout_ms": 3000})
    rig.produce(ticks(0, 400))
    name = rig.settings.features.name
    loops = [build(rig.settings, f"{name}.{slot}", LoopMetrics()) for slot in (0, 1)]
    loops[0].start()
    while loops[0]._metrics.registry.get_sample_value("mystocks_rows_out_total") != 400:
        loops[0].step()
    enlarge(rig, 6)
    # A newcomer makes the group look at the topic again.
    loops[1].start()
    stopped: set[int] = set()
    deadline = time.monotonic() + 60
    while len(stopped) < len(loops):
        assert time.monotonic() < deadline
        for slot, loop in enumerate(loops):
            if slot not in stopped:
                try:
                    loop.step()
                except PartitionCountError:
                    stopped.add(slot)
    for loop in loops:
        loop._output.close()
        loop._assignment.close()
    rig.await_rows(400)


def test_a_source_with_more_partitions_than_the_features_stops_the_start(features):
    rig = features("")
    enlarge(rig, 6)
    with pytest.raises(PartitionCountError, match=r"to have 6 partitions as .*, has 4"):
        build(rig.settings, f"{rig.settings.features.name}.0", LoopMetrics())


def enlarge(rig, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": rig.kafka})
    admin.create_partitions([NewPartitions(rig.source, count)])[rig.source].result()
    deadline = time.monotonic() + 30
    while len(admin.list_topics(rig.source).topics[rig.source].partitions) < count:
        assert time.monotonic() < deadline
