"""The way from the past to the present, step by step, without a broker."""

import pytest

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.history import History
from grpc_bridge.fanout.start import Beginning
from mystocks.v1.market_pb2 import FeatureBlock
from tests.grpc_bridge.fanout.fakes import FakeFeed, FeatureMessage, message


def log_of(**counts: int) -> dict[int, list[FeatureMessage]]:
    """Returns so many messages for each partition, `p0=100`."""
    return {
        int(name[1:]): [message(int(name[1:]), offset) for offset in range(count)]
        for name, count in counts.items()
    }


def begin(feed: FakeFeed, choice: Choice | None = None) -> History:
    return History(feed, choice or Choice(), Beginning(dict.fromkeys(feed.log, 0), {}))


async def step(history: History, got: dict[int, list[int]]) -> bool:
    """Takes what comes next; returns whether there is more of the past."""
    delivery = await history.next()
    for encoded in delivery.blocks if delivery is not None else ():
        block = FeatureBlock.FromString(encoded.data)
        got[block.first_row.partition].append(block.first_row.row)
    return delivery is not None and not history.at_present


@pytest.mark.asyncio
@pytest.mark.parametrize("store_bytes", [1, 30_000, 10**9])
async def test_a_long_past_is_read_while_another_partition_lives(store_bytes):
    feed = FakeFeed(log_of(p0=300, p1=5), {0: 300, 1: 5}, store_bytes=store_bytes)
    history, got, steps = begin(feed), {0: [], 1: []}, 0
    while await step(history, got):
        feed.take_over(message(1, len(feed.log[1])))
        steps += 1
        assert steps < 100, "one partition stands still"
    assert got == {p: list(range(len(messages))) for p, messages in feed.log.items()}


@pytest.mark.asyncio
async def test_what_is_no_block_is_passed_over_also_if_nobody_looked_at_it():
    feed = FakeFeed(log_of(p0=2), {0: 2})
    feed.take_over(FeatureMessage(0, 2, b"no block", first_row=2, rows=3))
    feed.take_over(FeatureMessage(0, 3, message(0, 0).value(), first_row=5, rows=1))
    history, got = begin(feed), {0: []}
    while await step(history, got):
        pass
    assert got == {0: [0, 1, 5]}
    assert history.rows == {0: 6}


@pytest.mark.asyncio
async def test_who_finds_nothing_that_is_shown_takes_turns_too():
    feed = FakeFeed(log_of(p0=0), {0: 0})
    for offset in range(1000):
        feed.take_over(message(0, offset))
    history = begin(feed, Choice(frozenset({"NOBODY"})))
    assert await history.next() is None
    assert history.offsets == {0: 1000}
    # 32 records of the least size that is counted are a part.
    assert feed.turns.begun > 1000 // 33


@pytest.mark.asyncio
async def test_readers_that_come_together_read_what_is_missing_once():
    feed = FakeFeed(log_of(p0=400), {0: 400})
    arrived = []
    for _ in range(30):
        history, got = begin(feed), {0: []}
        while await step(history, got):
            pass
        arrived.append(got)
    assert arrived == [{0: list(range(400))}] * 30
    assert feed.past.readings == 20


@pytest.mark.asyncio
async def test_partitions_take_turns_within_the_past_of_one_reader():
    feed = FakeFeed(log_of(p0=0, p1=0, p2=0), {0: 0, 1: 0, 2: 0})
    for partition in feed.log:
        for offset in range(300):
            feed.take_over(message(partition, offset))
    history, got = begin(feed), {0: [], 1: [], 2: []}
    for _ in range(6):
        assert await step(history, got)
    assert len({len(rows) for rows in got.values()}) == 1
