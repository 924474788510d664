"""What the store says follows a position is what the log says, whatever was dropped meanwhile."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.recent import Recent
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.store import RecordStore, entries_of
from grpc_bridge.fanout.turns import Turns
from tests.grpc_bridge.fanout.fakes import FeatureMessage


class Record:
    """As much of a record as a position needs."""

    def __init__(self, partition: int, offset: int) -> None:
        self.partition, self.offset, self.size = partition, offset, 100
        self.decoded_bytes = 0

    def forget(self) -> None:
        pass


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=80), st.integers(1, 300))
def test_what_is_kept_is_bounded_and_is_what_was_used_last(steps, most):
    dropped: list[int] = []
    recent, model = Recent[int, int](most, dropped.append), {}
    for key, size in steps:
        if size == 0:
            assert recent.get(key) == model.get(key, (None,))[0]
            if key in model:
                model[key] = model.pop(key)
            continue
        recent.put(key, key, size)
        model.pop(key, None)
        model[key] = key, size
        while sum(size for _, size in model.values()) > most and len(model) > 1:
            oldest = next(iter(model))
            del model[oldest]
            assert dropped.pop(0) == oldest
        assert not dropped
    assert [key for key in range(4) if key in recent] == sorted(model)


@st.composite
def logs(draw) -> dict[int, list[int]]:
    """Offsets of the records of each partition; those between are ends of transactions."""
    return {
        partition: sorted(draw(st.sets(st.integers(0, 60), max_size=30))) for partition in range(2)
    }


@given(logs(), st.data())
def test_a_reader_gets_each_record_once_in_order_from_any_position(log, data):
    """With pieces of any size, a store that drops at any time, and others reading too."""
    ends = dict.fromkeys(log, 61)
    store = RecordStore("set", data.draw(st.sampled_from([1, 1500, 10**6])))

    def read(missing: dict[int, int]) -> dict:
        """A piece of the topic: a few records of each partition, and where that ended."""
        records, until = [], {}
        for p, start in missing.items():
            after = [offset for offset in log[p] if offset >= start]
            taken = after[: data.draw(st.integers(1, 5))]
            records += [(p, offset, Record(p, offset)) for offset in taken]
            until[p] = taken[-1] + 1 if taken and len(taken) < len(after) else ends[p]
        own = entries_of(missing, records, until)
        for (p, offset), entry in own.items():
            store.add(p, offset, entry)
        return own

    for _ in range(3):
        start = {p: data.draw(st.integers(0, 61)) for p in log}
        at, own, got = dict(start), {}, {p: [] for p in log}
        while at != ends:
            found = store.follow(at, ends, data.draw(st.integers(1, 20_000)), own)
            for record in found.records:
                got[record.partition].append(record.offset)
            if found.offsets == at:
                missing = store.missing(at, ends)
                assert missing, "stands still before the end"
                own = read(missing)
            at = found.offsets
        assert got == {p: [o for o in log[p] if o >= start[p]] for p in log}


def test_what_is_given_out_at_a_time_is_bounded_in_all_and_not_by_partition():
    store = RecordStore("set", 10**9)
    for partition in range(64):
        for offset in range(100):
            store.add(partition, offset, Record(partition, offset))
    everything, ends = dict.fromkeys(range(64), 0), dict.fromkeys(range(64), 100)
    assert len(store.follow(everything, ends, 40_000, {}).records) == 10
    one_behind = ends | {7: 0}
    assert len(store.follow(one_behind, ends, 40_000, {}).records) == 10
    for offset in range(1000):
        store.add(64, offset, offset + 1)
    found = store.follow({64: 0}, {64: 1000}, 40_000, {})
    assert not found.records
    assert 10 < found.offsets[64] < 100


def test_decoded_rows_count_with_all_that_they_take():
    value = orjson.dumps([{"symbol": "IBM", "event_time_ns": 1, "price": 2.0, "sma_3": 3.0}])
    store, records = RecordStore("set", 10**9), []
    for offset in range(12_000):
        record = FeatureRecord(FeatureMessage(0, offset, value, first_row=offset, rows=1))
        store.used(record)
        assert record.decoded_bytes == 0
        record.columns()
        store.used(record)
        records.append(record)
    assert 15 * 1024**2 < sum(record.decoded_bytes for record in records) < 17 * 1024**2
    assert records[-1].decoded_bytes > 2000
    assert records[0].decoded_bytes == 0


def test_readers_of_one_choice_share_a_block_also_those_with_a_time_that_is_no_bound(monkeypatch):
    made = []

    def encode(_set, record, choice, _pick):
        made.append((record.offset, choice))
        return type("Block", (), {"data": b"..."})()

    monkeypatch.setattr("grpc_bridge.fanout.store.encode_record", encode)
    store, record = RecordStore("set", 10**6), Record(0, 7)
    record.oldest_ns = 50
    everything, some = Choice(), Choice(frozenset({"IBM"}))
    first = store.block(record, everything, slice(0, 3), 0)
    assert store.block(record, everything, slice(0, 3), 0) is first
    assert store.block(record, Choice(since_ns=50), slice(0, 3), 0) is first
    assert store.block(record, Choice(since_ns=51), slice(1, 3), 0) is not first
    assert store.block(record, some, slice(0, 1), 0) is not first
    assert store.block(record, everything, slice(1, 3), 1) is not first
    assert [choice for _, choice in made] == [everything, Choice(since_ns=51), some, everything]
    # To compare very many symbols takes longer than to encode their rows.
    many = [Choice(frozenset(map(str, range(1000)))) for _ in range(2)]
    blocks = [store.block(record, choice, slice(0, 3), 0) for choice in many]
    assert blocks[0] is not blocks[1]


@pytest.mark.asyncio
async def test_turns_are_few_and_one_that_is_not_given_back_ends_by_itself(monkeypatch):
    monkeypatch.setattr("grpc_bridge.fanout.turns._LONGEST_S", 2.0)
    turns = Turns()
    held = [await turns.begin() for _ in range(8)]
    ninth = asyncio.create_task(turns.begin())
    await asyncio.sleep(0)
    assert not ninth.done()
    held[0].end()
    held[0].end()  # a second time gives nothing more
    tenth = asyncio.create_task(turns.begin())
    await asyncio.wait_for(ninth, 5)
    assert not tenth.done()
    await asyncio.wait_for(tenth, 5)
