"""`mystocks verify` finds what was done to a log, and nothing where nothing was done."""

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from mystocks.cli.verify_run import verify_features, verify_ticks
from streams.local.stack import LocalStack
from tests.roles.rig import PARTITIONS, committed_reader

pytestmark = pytest.mark.kafka

TICKS = 20_000
TIME = 1_700_000_000_000_000_000


def ticks() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(3)
    return [
        (
            f"V{i % 37:02d}",
            b'{"symbol":"V%02d","event_time_ns":%d,"price":%.2f,"sequence":%d}'
            % (i % 37, TIME + i, price, i),
        )
        for i, price in enumerate(100 + np.cumsum(rng.normal(0, 0.1, TICKS)))
    ]


def test_a_log_is_right_after_a_kill_and_every_tampering_is_found(features, kafka_bootstrap):
    rig = features("", snapshot_interval_s=0.3)
    rig.start()
    messages = ticks()
    rig.produce(messages[: TICKS // 2])
    rig.await_rows(TICKS // 2)
    rig.kill()
    rig.start()
    rig.produce([*messages[TICKS // 2 :], ("V00", b"garbage")])
    rig.await_rows(TICKS)
    assert rig.stop() == 0
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert (report.rows, report.recomputed, report.notes) == (TICKS, TICKS, [])
    source = verify_ticks(rig.settings, rig.source)
    assert (source.ok, source.ticks, source.refused, source.symbols) == (True, TICKS, 1, 37)
    assert (source.duplicates, source.out_of_order) == (0, 0)
    other_set = features("other", source_topic=rig.source, indicators=("sma_3",))
    assert "not computed again" in verify_features(other_set.settings, rig.output).notes[0]

    last = last_block(kafka_bootstrap, rig.output)
    append(kafka_bootstrap, rig.output, last, last.value())
    repeated = verify_features(rig.settings, rig.output)
    assert not repeated.ok
    rows = int(dict(last.headers())["rows"])
    assert (repeated.doubles, repeated.gaps, repeated.differing) == (rows, 0, 0)

    headers = dict(last.headers())
    following = int(headers["first_row"]) + rows
    append(kafka_bootstrap, rig.output, last, last.value(), first_row=b"%d" % (following + 5))
    changed = verify_features(rig.settings, rig.output)
    assert (changed.gaps, changed.differing) == (1, rows)


def test_one_changed_bit_of_one_value_is_found(features, kafka_bootstrap):
    rig = features("")
    forged = features("forged", source_topic=rig.source)
    rig.start()
    rig.produce(ticks()[:4000])
    rig.await_rows(4000)
    assert rig.stop() == 0
    victim = last_block(kafka_bootstrap, rig.output)
    reader = committed_reader(kafka_bootstrap, rig.output)
    seen = 0
    while seen < 4000:
        for message in reader.consume(500, 0.5):
            value = message.value()
            seen += int(dict(message.headers())["rows"])
            if (message.partition(), message.offset()) == (victim.partition(), victim.offset()):
                value = with_one_bit_flipped(value)
            append(kafka_bootstrap, forged.output, message, value)
    reader.close()
    report = verify_features(forged.settings, forged.output)
    assert (report.rows, report.differing, report.gaps, report.doubles) == (4000, 1, 0, 0)


def test_a_last_block_that_never_came_is_noticed(features, kafka_bootstrap, monkeypatch):
    monkeypatch.setattr("mystocks.cli.verify_run._PATIENCE_S", 0.5)
    rig = features("")
    whole = features("whole", source_topic=rig.source)
    short = features("short", source_topic=rig.source)
    rig.start()
    rig.produce(ticks()[:4000])
    rig.await_rows(4000)
    assert rig.stop() == 0
    victim = last_block(kafka_bootstrap, rig.output)
    reader = committed_reader(kafka_bootstrap, rig.output)
    blocks, seen = [], 0
    while seen < 4000:
        for message in reader.consume(500, 0.5):
            blocks.append(message)
            seen += int(dict(message.headers())["rows"])
    reader.close()
    for message in blocks:
        append(kafka_bootstrap, whole.output, message, message.value())
        if (message.partition(), message.offset()) != (victim.partition(), victim.offset()):
            append(kafka_bootstrap, short.output, message, message.value())
    for copy in (whole, short):
        commit_as(rig, copy)
    assert verify_features(whole.settings, whole.output).ok
    report = verify_features(short.settings, short.output)
    missing = int(dict(victim.headers())["first_row"])
    assert (report.ok, report.gaps, report.differing) == (False, 1, 0)
    place = f"{short.output} {victim.partition()} ends before row {missing}"
    assert report.problems[0].startswith(place)


def test_a_block_of_earlier_ticks_behind_later_ones_is_found(features, kafka_bootstrap):
    rig = features("")
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    for first_row, first, last in ((0, 0, 1), (2, 4, 5), (4, 2, 3), (6, 6, 7)):
        headers = {
            "first_row": first_row,
            "rows": 2,
            "source_first_offset": first,
            "source_last_offset": last,
        }
        encoded = [(name, b"%d" % number) for name, number in headers.items()]
        producer.produce(rig.output, b"", partition=1, headers=encoded)
    producer.flush()
    report = verify_features(rig.settings, rig.output, recompute=False)
    assert (report.rows, report.disordered, report.gaps, report.doubles) == (8, 1, 0, 0)
    assert not report.ok
    assert report.problems == [f"{rig.output} 1:2 is of source offset 2, after 5"]


@pytest.fixture
def own_broker(tmp_path):
    """A broker whose files may be damaged."""
    with LocalStack(tmp_path / "stack", redis=False) as endpoints:
        yield endpoints.kafka


def test_a_damaged_batch_is_a_finding_with_its_place(own_broker, features, tmp_path):
    rig = features("", kafka=own_broker)
    rig.start()
    messages = ticks()[:3000]
    for start in range(0, 3000, 1000):
        rig.produce(messages[start : start + 1000])
    rig.await_rows(3000)
    assert rig.stop() == 0
    assert verify_features(rig.settings, rig.output).ok

    damaged = damage_last_batch(tmp_path, rig.source, 2)
    source = verify_ticks(rig.settings, rig.source)
    assert not source.ok
    assert 0 < source.ticks < 3000
    [text] = source.damaged
    assert f"at offset {damaged} of {rig.source} 2, was damaged" in text
    report = verify_features(rig.settings, rig.output)
    assert (report.ok, report.damaged, report.gaps, report.differing) == (False, 1, 0, 0)
    assert report.rows == 3000
    assert f"at offset {damaged} of {rig.source} 2" in report.problems[0]

    damaged = damage_last_batch(tmp_path, rig.output, 1)
    report = verify_features(rig.settings, rig.output)
    assert (report.ok, report.damaged, report.rows < 3000) == (False, 2, True)
    assert f"at offset {damaged} of {rig.output} 1" in report.problems[0]


def test_a_symbol_on_two_partitions_is_named(features):
    rig = features("")
    rig.produce(ticks()[:100])
    rig._producer.produce(
        rig.source, b'{"symbol":"V01","event_time_ns":%d,"price":1}' % TIME, partition=3
    )
    rig._producer.produce(
        rig.source, b'{"symbol":"V01","event_time_ns":%d,"price":1}' % TIME, partition=2
    )
    rig._producer.flush()
    report = verify_ticks(rig.settings, rig.source)
    assert not report.ok
    assert set(report.split_symbols) == {"V01"}


def with_one_bit_flipped(value: bytes) -> bytes:
    batch = pa.ipc.open_stream(value).read_next_batch()
    columns = {name: batch.column(name) for name in batch.schema.names}
    bits = columns["price"].to_numpy().copy().view(np.int64)
    bits[-1] ^= 1
    columns["price"] = pa.array(bits.view(np.float64))
    sink = pa.BufferOutputStream()
    changed = pa.record_batch(list(columns.values()), schema=batch.schema)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(changed)
    return bytes(sink.getvalue())


def last_block(kafka: str, topic: str):
    reader = committed_reader(kafka, topic)
    found = [m for _ in range(10) for m in reader.consume(1000, 0.3) if m.error() is None]
    reader.close()
    return max(
        (m for m in found if m.partition() == found[0].partition()), key=lambda m: m.offset()
    )


def append(kafka: str, topic: str, like, value: bytes, **headers: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    merged = dict(like.headers()) | headers
    producer.produce(topic, value, partition=like.partition(), headers=list(merged.items()))
    producer.flush()
    assert like.partition() < PARTITIONS


def commit_as(rig, copy) -> None:
    """Commits for the group of `copy` what the group of `rig` has committed."""
    places = [TopicPartition(rig.source, p) for p in range(PARTITIONS)]
    consumers = [
        Consumer({"bootstrap.servers": rig.kafka, "group.id": one.settings.features_group})
        for one in (rig, copy)
    ]
    consumers[1].commit(offsets=consumers[0].committed(places, 30), asynchronous=False)
    for consumer in consumers:
        consumer.close()


def damage_last_batch(tmp_path, topic: str, partition: int) -> int:
    """Changes one bit of the last batch of records on the broker's disk; returns its offset.

    The broker sends what the file holds and looks at no checksum.
    """
    [log] = (tmp_path / "stack").glob(f"**/{topic}-{partition}/{0:020}.log")
    data, at, places = log.read_bytes(), 0, []
    # Base offset, length of the rest, and behind them attributes, of which 0x20 is a marker's.
    while at + 61 <= len(data) and (size := int.from_bytes(data[at + 8 : at + 12], "big")):
        if not data[at + 22] & 0x20:
            places.append((int.from_bytes(data[at : at + 8], "big"), at + 12 + size - 1))
        at += 12 + size
    offset, last_byte = places[-1]
    with log.open("r+b") as file:
        file.seek(last_byte)
        file.write(bytes([data[last_byte] ^ 1]))
    return offset
