"""Late ticks, duplicates and ticks from the far future, end to end."""

import json
import time

import numpy as np
import pytest
import redis
from confluent_kafka import Consumer, TopicPartition

from mystocks.cli.verify_run import verify_features, verify_ticks
from schemas import headers
from schemas.dead_letters import parse_rows
from schemas.partitioner import partition_for
from schemas.topics import late_topic
from tests.roles.rig import PARTITIONS, committed_reader

pytestmark = pytest.mark.kafka

START = 1_700_000_000 * 10**9
SECOND = 10**9
SYMBOLS = [f"L{i:02d}" for i in range(12)]
RULES = {"allowed_lateness_ms": 5000, "drop_duplicates": True, "snapshot_interval_s": 0.3}


def tick(symbol: str, seconds: float, sequence: int) -> dict:
    return {
        "symbol": symbol,
        "event_time_ns": START + int(seconds * SECOND),
        "price": round(100 + np.sin(sequence) * 5, 2),
        "sequence": sequence,
    }


def message(*ticks: dict) -> bytes:
    return json.dumps(ticks).encode()


class Messy:
    """A log with everything that feeds do wrong, and what should become of it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.taken: dict[str, list[dict]] = {symbol: [] for symbol in SYMBOLS}
        self.late: list[tuple[bytes, tuple[int, ...]]] = []
        self.duplicates = 0

    def add(self, rounds: range) -> None:
        for k in rounds:
            for symbol in SYMBOLS:
                good = tick(symbol, k, 10 * k)
                self.send(symbol, good)
                if k % 10 == 4:
                    # Not so late, very late, the first once more, and in order again.
                    straggler, late = tick(symbol, k - 3, 10 * k + 1), tick(symbol, 0.5, 10 * k + 2)
                    late_too = tick(symbol, k - 6 if k > 10 else 0.25, 10 * k + 3)
                    more = tick(symbol, k + 0.5, 10 * k + 4)
                    value = message(straggler, late, good, late_too, more)
                    rows = (1, 3) if k > 10 else ()
                    self.messages.append((symbol, value))
                    self.taken[symbol] += [straggler, more] if rows else [
                        straggler, late, late_too, more
                    ]  # fmt: skip
                    if rows:
                        self.late.append((value, rows))
                    self.duplicates += 1
                if k % 10 == 7:
                    self.send(symbol, tick(symbol, 10**6 + k, 10 * k + 5))

    def send(self, symbol: str, *ticks: dict) -> None:
        self.messages.append((symbol, message(*ticks)))
        self.taken[symbol] += ticks

    @property
    def rows(self) -> int:
        return sum(map(len, self.taken.values()))


def late_letters(rig, count: int, timeout_s: float = 60.0):
    reader = committed_reader(rig.kafka, late_topic(rig.source))
    found, deadline = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < deadline:
        found += [m for m in reader.consume(500, 0.2) if m.error() is None]
    found += [m for m in reader.consume(500, 0.5) if m.error() is None]
    reader.close()
    assert len(found) == count
    return found


def test_late_ticks_and_duplicates_get_no_row_and_a_kill_changes_nothing(features):
    rig = features("", **RULES)
    log = Messy()
    log.add(range(30))
    rig.start()
    rig.produce(log.messages)
    rig.await_rows(log.rows)
    assert rig.metric("mystocks_late_ticks_total") == 2 * len(log.late)
    assert rig.metric("mystocks_duplicate_ticks_total") == log.duplicates
    assert rig.metric("mystocks_dead_letters_total") == 0
    rig.kill()
    before = len(log.messages)
    log.add(range(30, 60))
    rig.start()
    rig.produce(log.messages[before:])
    rows = rig.await_rows(log.rows)
    rows.assert_gap_free()
    assert rig.stop() == 0
    for symbol, ticks in log.taken.items():
        columns = rows.columns(partition_for(symbol, PARTITIONS))
        mine = [i for i, name in enumerate(columns["symbol"]) if name == symbol]
        assert [columns["event_time"][i] for i in mine] == [t["event_time_ns"] for t in ticks]
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert (report.rows, report.recomputed, report.notes) == (log.rows, log.rows, [])
    assert verify_ticks(rig.settings, rig.source).duplicates == log.duplicates


def test_a_late_tick_lands_on_the_late_topic_with_its_bytes_and_where_it_came_from(features):
    rig = features("", **RULES)
    log = Messy()
    log.add(range(30))
    rig.produce(log.messages, headers=[("trace", b"7"), ("content-type", b"application/json")])
    rig.start()
    letters = late_letters(rig, len(log.late))
    assert sorted((m.value(), parse(m)) for m in letters) == sorted(log.late)
    for letter in letters:
        found = dict(letter.headers())
        symbol = json.loads(letter.value())[0]["symbol"]
        assert letter.key() == symbol.encode()
        assert letter.partition() == partition_for(symbol, PARTITIONS)
        assert found["trace"] == b"7"
        assert found[headers.CONTENT_TYPE] == b"application/json"
        assert found[headers.SOURCE_TOPIC] == rig.source.encode()
        assert found[headers.SOURCE_PARTITION] == b"%d" % letter.partition()
        assert found[headers.GROUP] == rig.settings.features_group.encode()
        reason = found[headers.REASON].decode()
        assert reason.startswith("late: tick 1 is ")
        assert f"behind the newest of {symbol}, allowed are 5 s (and 1 more)" in reason
    offsets = {int(dict(m.headers())[headers.SOURCE_OFFSET]) for m in letters}
    assert len(offsets) > 1


def parse(letter) -> tuple[int, ...]:
    return tuple(sorted(parse_rows(dict(letter.headers())[headers.ROWS].decode())))


def test_by_default_every_tick_gets_its_row_in_the_order_of_the_log(features):
    rig = features("", indicators=("sma_3",))
    log = Messy()
    log.add(range(15))
    rig.start()
    rig.produce(log.messages)
    sent = sum(len(json.loads(value)) for _, value in log.messages)
    rows = rig.await_rows(sent)
    times = {}
    for symbol in SYMBOLS:
        columns = rows.columns(partition_for(symbol, PARTITIONS))
        named = zip(columns["symbol"], columns["event_time"], strict=True)
        times[symbol] = [t for name, t in named if name == symbol]
    for symbol in SYMBOLS:
        values = [json.loads(value) for name, value in log.messages if name == symbol]
        assert times[symbol] == [t["event_time_ns"] for ticks in values for t in ticks]
    assert rig.metric("mystocks_late_ticks_total") == 0


@pytest.mark.timeout(300)
def test_row_identities_and_redis_stay_right_through_kills_while_ticks_are_dropped(
    features, redis_url
):
    # Stored at every commit, in parts: a restart finds state of many ages to number rows by.
    rig = features("", **RULES | {"snapshot_interval_s": 0.05, "indicators": ("sma_3",)})
    rng = np.random.default_rng(1)
    symbols = [f"Z{k}" for k in range(1500)]
    sent: list[list[dict]] = []
    for life in range(3):
        rig.start()
        lived = time.monotonic()
        while time.monotonic() - lived < 0.4 + 0.3 * life:
            batch = []
            for _ in range(200):
                if sent and rng.random() < 0.2:
                    batch.append(sent[-int(rng.integers(1, min(len(sent), 300) + 1))])
                    continue
                symbol, k = symbols[rng.integers(len(symbols))], len(sent)
                behind = rng.choice([0, 3, 60, -(10**6)], size=2, p=[0.8, 0.1, 0.08, 0.02])
                batch.append(
                    [tick(symbol, max(k / 30 - b, 0), 2 * k + i) for i, b in enumerate(behind)]
                )
                sent.append(batch[-1])
            rig.produce((ticks[0]["symbol"], message(*ticks)) for ticks in batch)
        rig.kill()
    rig.start()
    await_idle(rig)
    assert rig.stop() == 0
    report = verify_features(rig.settings, rig.output)
    assert report.ok, report.problems
    assert (report.recomputed, report.notes) == (report.rows, [])
    rows = rig.await_rows(report.rows)
    rows.assert_gap_free()
    last = {
        symbol: int(number)
        for partition in range(PARTITIONS)
        for symbol, number in zip(
            rows.columns(partition)["symbol"], rows.numbers(partition), strict=True
        )
    }
    table = redis.Redis.from_url(redis_url).hgetall(f"features:{rig.settings.features.name}")
    assert {name.decode(): json.loads(row)["row"] for name, row in table.items()} == last


def await_idle(rig, timeout_s: float = 60.0) -> None:
    """Waits until the group has committed the end of its source."""
    group = {"bootstrap.servers": rig.kafka, "group.id": rig.settings.features_group}
    reader = Consumer(group)
    parts = [TopicPartition(rig.source, p) for p in range(PARTITIONS)]
    ends = [reader.get_watermark_offsets(part, timeout=10)[1] for part in parts]
    deadline = time.monotonic() + timeout_s
    while [part.offset for part in reader.committed(parts, timeout=10)] != ends:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    reader.close()
