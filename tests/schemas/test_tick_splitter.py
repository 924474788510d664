"""What a splitter makes of any messages is what the rules and the partitioner say, in order."""

import math
import random
import struct
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tick_samples import TIME, good_batch, symbols

from mystocks.v1.market_pb2 import Tick, TickBatch
from schemas.partitioner import partition_for
from schemas.ticks.encode import encode_batch
from schemas.ticks.library import MalformedMessageError, parse_protobuf, protobuf_ticks
from schemas.ticks.rules import tick_problem
from schemas.ticks.splitter import TickSplitter

PARTITIONS = 3
MAX_RECORD = 300


@pytest.fixture(scope="module")
def splitter():
    made = TickSplitter(PARTITIONS, MAX_RECORD)
    made.warm_up()
    return made


def oracle(values):
    """Ticks by partition as (message, bytes), refused (message, row), malformed messages."""
    kept, refused, malformed = defaultdict(list), set(), set()
    for k, value in enumerate(values):
        try:
            batch = TickBatch() if not value else parse_protobuf(value)
        except MalformedMessageError:
            malformed.add(k)
            continue
        for row, fields in enumerate(protobuf_ticks(batch)):
            if isinstance(fields, str) or tick_problem(*fields) is not None:
                refused.add((k, row))
            else:
                tick = batch.ticks[row]
                kept[partition_for(fields.symbol, PARTITIONS)].append((k, repr(tick)))
    return dict(kept), refused, malformed


def result(split):
    kept = defaultdict(list)
    for record in split.records:
        batch = TickBatch.FromString(record.value)
        messages = [message for message, count in record.runs for _ in range(count)]
        assert len(messages) == len(batch.ticks) > 0
        kept[record.partition] += [
            (k, repr(tick)) for k, tick in zip(messages, batch.ticks, strict=True)
        ]
        names = {tick.symbol for tick in batch.ticks}
        assert record.symbol == (names.pop() if len(names) == 1 else None)
        assert record.newest_ns == max(tick.event_time_ns for tick in batch.ticks)
        assert len(record.value) <= MAX_RECORD or len(batch.ticks) == 1
    return dict(kept), {(k, row) for k, row, _ in split.refused}, set(split.malformed)


floats = st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.nan, math.inf, -1.0])
ticks = st.builds(
    Tick,
    symbol=symbols | st.sampled_from(["", "a b", "X" * 33, "é"]),
    event_time_ns=st.integers(-(2**63), 2**63 - 1) | st.just(TIME),
    price=floats | st.just(2.5),
    size=st.just(0.0) | floats,
    bid=st.none() | floats,
    sequence=st.none() | st.integers(-(2**63), 2**63 - 1),
    amount=st.none() | floats,
)
batches = st.lists(ticks, max_size=8).map(lambda found: TickBatch(ticks=found).SerializeToString())
unknown_field = batches.map(lambda value: b"\x12\x03abc" + value)
cut = batches.map(lambda value: value[:-1])


@settings(max_examples=150)
@given(values=st.lists(batches | unknown_field | cut | st.binary(max_size=40), max_size=8))
def test_any_messages_are_split_as_the_rules_say(splitter, values):
    split = splitter.split(values)
    assert result(split) == oracle(values)
    kept = sum(count for record in split.records for _, count in record.runs)
    assert split.accepted.sum() == len(split.code) == kept
    assert len(split.ticks) == len(values)


def test_every_reason_names_the_field(splitter):
    good = {"symbol": "A", "event_time_ns": TIME, "price": 1.0}
    bad = [
        {"symbol": "a b"},
        {"event_time_ns": 5},
        {"price": math.nan},
        {"size": -1.0},
        {"bid": math.inf},
        {"ask": -1.0},
        {"sequence": -2},
        {"volume": -1.0},
        {"amount": math.inf},
    ]
    value = TickBatch(ticks=[Tick(**(good | change)) for change in bad]).SerializeToString()
    split = splitter.split([value])
    assert split.records == []
    for (k, row, reason), change in zip(split.refused, bad, strict=True):
        assert (k, bad[row]) == (0, change)
        assert reason.startswith(next(iter(change)))
        assert "expected" in reason or "character" in reason


def test_unknown_fields_of_a_tick_are_kept_and_too_many_refused(splitter):
    body = Tick(symbol="A", event_time_ns=TIME, price=1.0).SerializeToString()
    newer = body + b"\x7a\x03xyz"
    huge = body + b"\x7a\x88\x27" + bytes(5000)
    known = [Tick.FromString(tick) for tick in (newer, huge)]
    value = TickBatch(ticks=known).SerializeToString()
    split = splitter.split([value])
    assert [record.value for record in split.records] == [value[: 2 + len(newer)]]
    assert [(k, row) for k, row, _ in split.refused] == [(0, 1)]
    assert "expected at most 4096" in split.refused[0][2]


def test_a_flood_of_bad_ticks_is_one_malformed_message(splitter):
    split = splitter.split([good_batch(), b"\x0a\x00" * 20_000])
    assert "20000 ticks" in split.malformed[1]
    assert split.refused == []
    assert sum(count for record in split.records for k, count in record.runs if k == 0) > 0


def test_many_malformed_messages_cost_no_more_than_themselves(splitter, monkeypatch):
    scans = []
    scan = TickSplitter._scan_once
    monkeypatch.setattr(
        TickSplitter, "_scan_once", lambda self, values: scans.append(1) or scan(self, values)
    )
    split = splitter.split([b"\xff\xff"] * 2000 + [good_batch()])
    assert len(split.malformed) == 2000
    assert len(split.records) > 0
    assert len(scans) == 2


def test_the_symbol_table_is_begun_anew_before_it_takes_too_much(monkeypatch):
    monkeypatch.setattr("schemas.ticks.splitter._MAX_SYMBOLS", 2000)
    splitter = TickSplitter(PARTITIONS, 10**6)
    first = splitter.generation
    names = [f"S{i}" for i in range(3000)]
    times, prices = [TIME] * 3000, [1.0] * 3000
    for _ in range(2):
        split = splitter.split([encode_batch(names, times, prices)])
        assert [splitter.symbol(code) for code in split.code.tolist()] == names
        for record in split.records:
            for tick in TickBatch.FromString(record.value).ticks:
                assert partition_for(tick.symbol, PARTITIONS) == record.partition
    assert splitter.generation == first + 1


def test_a_large_batch_grows_every_buffer():
    splitter = TickSplitter(PARTITIONS, 1000)
    rng = random.Random(3)
    names = [f"S{rng.randrange(5000)}" for _ in range(30_000)]
    value = encode_batch(names, range(TIME, TIME + 30_000), [1.0] * 30_000)
    split = splitter.split([value])
    got = defaultdict(list)
    for record in split.records:
        for tick in TickBatch.FromString(record.value).ticks:
            got[tick.symbol].append(tick.event_time_ns - TIME)
    want = defaultdict(list)
    for i, name in enumerate(names):
        want[name].append(i)
    assert got == want


def test_random_bytes_never_raise(splitter):
    rng = random.Random(4)
    for size in range(200):
        splitter.split([rng.randbytes(size), b"\x0a" + rng.randbytes(size)])
    splitter.split([b"\x0a" + struct.pack("<Q", 2**64 - 1) * 3])
