"""Which rows a stream gets, and when: an acknowledgement decides."""

import asyncio

import pytest

from grpc_bridge.fanout.delivery import Delivery
from grpc_bridge.fanout.encode import EncodedBlock
from grpc_bridge.fanout.errors import SlowReaderError
from grpc_bridge.registry import StreamEntry
from grpc_bridge.row_feed import RowFeed
from grpc_bridge.tick_sender import TickSender

pytestmark = pytest.mark.asyncio


class Source:
    """Gives out what a test puts into it."""

    queued_bytes = 0
    lag_rows = 0
    token = b"begin"

    def __init__(self):
        self._waiting = []
        self._news = asyncio.Event()

    def put(self, token, *blocks):
        self._waiting.append(Delivery(blocks, token, sum(block.rows for block in blocks)))
        self._news.set()

    async def take(self):
        while (found := self.take_nowait()) is None:
            self._news.clear()
            await self._news.wait()
        return found

    def take_nowait(self):
        if self._waiting and isinstance(self._waiting[0], Exception):
            raise self._waiting[0]
        return self._waiting.pop(0) if self._waiting else None

    def fail(self, error):
        self._waiting.append(error)
        self._news.set()


def block(partition, first, last, name):
    return EncodedBlock(partition, 1, first, last, name)


class Rig:
    def __init__(self, *, gated=True):
        self.source = Source()
        self.wakes = []
        self.sender = TickSender(StreamEntry("s", "p", "m"), lambda: None)
        self.feed = RowFeed(
            self.source, self.sender if gated else None, lambda: self.wakes.append(1)
        )

    def in_flight(self, partition):
        request = self.sender.receive(1, 10)
        request.records += 1
        self.sender.in_flight[partition] = self.sender.in_flight.get(partition, 0) + 1
        return request

    async def taken(self):
        for _ in range(5):
            await asyncio.sleep(0)
        found = self.feed.take(10**6)
        return None if found is None else [one.data for one in found]


async def test_rows_begin_with_the_first_block_that_reaches_an_acknowledged_offset():
    rig = Rig()
    rig.sender.acknowledge(rig.in_flight(0), 1, 0, 10)
    rig.source.put(b"t1", block(0, 7, 9, b"before"), block(0, 8, 10, b"reaches"))
    assert await rig.taken() == [b"reaches"]
    rig.source.put(b"t2", block(0, 11, 11, b"after"), block(1, 11, 11, b"other partition"))
    assert await rig.taken() == [b"after"]
    assert (rig.feed.token, rig.feed.rows_sent) == (b"t2", 2)
    await rig.feed.close()


async def test_while_an_acknowledgement_is_awaited_nothing_overtakes_and_the_token_stays():
    rig = Rig()
    rig.sender.acknowledge(rig.in_flight(1), 1, 1, 5)
    request = rig.in_flight(0)
    rig.source.put(b"t1", block(0, 3, 3, b"a"))
    rig.source.put(b"t2", block(1, 6, 6, b"b"))
    assert await rig.taken() is None
    assert rig.feed.token == b"begin"
    assert rig.feed.waiting
    rig.sender.acknowledge(request, 1, 0, 3)
    assert await rig.taken() == [b"a"]
    assert await rig.taken() == [b"b"]
    assert rig.feed.token == b"t2"
    await rig.feed.close()


async def test_rows_that_are_nobody_s_move_the_token_only():
    rig = Rig()
    rig.source.put(b"t1", block(0, 3, 3, b"a"))
    assert await rig.taken() == []
    assert (rig.feed.token, rig.feed.rows_sent) == (b"t1", 0)
    await rig.feed.close()


async def test_a_selection_gets_everything_one_delivery_ahead():
    rig = Rig(gated=False)
    for i in range(3):
        rig.source.put(b"t%d" % i, block(0, i, i, b"%d" % i))
    await asyncio.sleep(0.01)
    assert len(rig.source._waiting) == 2  # the others wait in the hub, whose policy counts
    assert [await rig.taken() for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]
    await rig.feed.close()


async def test_finish_takes_what_is_left():
    rig = Rig(gated=False)
    for i in range(3):
        rig.source.put(b"t%d" % i, block(0, i, i, b"%d" % i))
    rig.feed.finish()
    assert await rig.taken() == [b"0", b"1", b"2"]
    await rig.feed.close()


async def test_an_error_of_the_hub_comes_after_the_rows_before_it():
    rig = Rig(gated=False)
    rig.source.put(b"t0", block(0, 0, 0, b"0"))
    rig.source.fail(SlowReaderError("slow", b""))
    assert await rig.taken() == [b"0"]
    assert await rig.taken() is None
    assert isinstance(rig.feed.error, SlowReaderError)
    assert rig.wakes
    await rig.feed.close()
