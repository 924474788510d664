"""`mystocks verify` finds what was done to a log, and nothing where nothing was done."""

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from mystocks.cli.verify_run import verify_features, verify_ticks
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
