"""What is no request ends the stream with INVALID_ARGUMENT; what came before it is in the log."""

import asyncio
import contextlib
import random

import grpc
import pytest

from mystocks.v1.market_pb2 import Tick, TickBatch
from mystocks.v1.realtime_pb2 import MarketDataRequest
from tests.grpc_bridge.rig import (
    MarketClient,
    connected,
    details,
    log_ticks,
    served,
    settled,
    tick,
)

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]

_METHOD = "/mystocks.v1.RealTimeService/StreamMarketData"


def framed(field: int, payload: bytes) -> bytes:
    assert len(payload) < 128
    return bytes([field << 3 | 2, len(payload)]) + payload


class RawCall(MarketClient):
    """Sends bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        from mystocks.v1.realtime_pb2 import MarketDataResponse

        class Stub:
            StreamMarketData = channel.stream_stream(
                _METHOD, response_deserializer=MarketDataResponse.FromString
            )

        super().__init__(Stub)


GOOD = tick("A").SerializeToString()
BAD = {
    "random bytes": random.Random(1).randbytes(200),
    "nothing": b"",
    "a number only": b"\x08\x05",
    "cut": MarketDataRequest(number=9, tick=tick("A")).SerializeToString()[:-1],
    "a tick that is none": b"\x08\x07" + framed(2, b"\xff\xff\xff"),
    "a batch that is none": b"\x08\x07" + framed(3, b"\x0a\x05abc"),
    "a symbol that is no text": b"\x08\x07" + framed(2, framed(1, b"\xff\xfe") + GOOD),
    "a tick in a batch that is none": b"\x08\x07" + framed(3, framed(1, GOOD) + framed(1, b"\x0f")),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_malformed_request_ends_the_stream_after_what_was_good(live, unique, name):
    async with grpc.aio.insecure_channel(live.address) as channel:
        client = RawCall(channel)
        good = MarketDataRequest(number=1, tick=tick(unique)).SerializeToString()
        await client.call.write(good)
        await client.call.write(BAD[name])
        code = await client.rest()
        assert code is grpc.StatusCode.INVALID_ARGUMENT, await client.ended()
        found = await details(client.call)
        assert found["BadRequest"].field_violations[0].field == "request"
        assert list(found["StreamInterrupted"].unacknowledged) == []
        assert client.accepted == 1
        assert "expected a MarketDataRequest" in await client.call.details()


async def test_any_random_bytes_end_in_invalid_argument_or_a_refusal(live):
    rng = random.Random(2)
    async with grpc.aio.insecure_channel(live.address) as channel:

        async def send(value: bytes) -> None:
            client = RawCall(channel)
            await client.call.write(value)
            await client.call.done_writing()
            code = await client.rest()
            if code is grpc.StatusCode.OK:
                assert client.refused
            else:
                assert code is grpc.StatusCode.INVALID_ARGUMENT, await client.ended()

        values = [rng.randbytes(rng.randrange(60)) for _ in range(40)]
        values += [framed(2, rng.randbytes(rng.randrange(60))) for _ in range(40)]
        values += [framed(3, framed(1, rng.randbytes(rng.randrange(60)))) for _ in range(40)]
        await asyncio.gather(*(send(value) for value in values))


async def test_unusual_but_valid_requests_are_understood(live, unique):
    one = tick(unique, 1).SerializeToString()
    many = TickBatch(ticks=[tick(unique, 2), tick(unique, 3)]).SerializeToString()
    unknown = framed(15, b"new")
    values = [
        framed(2, one) + b"\x08\x01",  # the number behind
        b"\x08\x02" + framed(3, many) + unknown,
        b"\x08\x03" + framed(2, tick(unique, 4).SerializeToString() + unknown),
        b"\x08\x04" + framed(3, framed(9, b"new") + framed(1, tick(unique, 5).SerializeToString())),
        # Of a oneof the last counts; parts of one message are merged.
        framed(2, one) + b"\x08\x05" + framed(3, framed(1, tick(unique, 6).SerializeToString())),
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01" + framed(2, one),  # 2**64 - 1
    ]
    async with grpc.aio.insecure_channel(live.address) as channel:
        client = RawCall(channel)
        for value in values:
            await client.call.write(value)
        await client.finish()
    assert [(n, a) for n, a, _, _ in client.acknowledged] == [
        (1, 1),
        (2, 2),
        (3, 1),
        (4, 1),
        (5, 1),
        (2**64 - 1, 1),
    ]
    assert len(client.rows) == 7


async def test_a_message_over_the_limit_is_refused_by_grpc(live, unique):
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        await client.send(1, tick(unique))
        await client.until(lambda: client.accepted == 1)
        ticks = [tick(unique, i) for i in range(1, 200)]
        await client.send(2, *(ticks * 800))
        assert await client.rest() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in await client.call.details()


async def test_a_large_batch_below_the_limit_is_split_into_records(live, unique):
    symbols = [f"{unique}.{i}" for i in range(50)]
    count = 60_000
    ticks = [
        Tick(symbol=symbols[i % 50], event_time_ns=10**18 + i, price=1.5) for i in range(count)
    ]
    async with connected(live.address, max_receive_message_length=-1) as stub:
        client = MarketClient(stub)
        await client.send(1, *ticks)
        await client.finish()
    assert client.accepted == len(client.rows) == count
    assert not client.twice
    assert len(client.acknowledged) == len({(p, o) for _, _, p, o in client.acknowledged})
    log = await asyncio.to_thread(log_ticks, live.settings)
    assert sum(len(log[p, o]) for _, _, p, o in client.acknowledged) == count


async def test_many_refusals_come_in_parts_that_fit(live, unique):
    bad = [Tick(symbol=unique, event_time_ns=10**18, price=-1.0)] * 9000
    async with connected(live.address) as stub:
        client = MarketClient(stub)
        await client.send(1, *bad, tick(unique))
        await client.finish()
    assert [row for _, row, _ in client.refused] == list(range(9000))
    assert client.accepted == 1
    assert client.responses > 9


async def test_a_failed_stream_reads_no_more_of_a_client_that_does_not_read(own):
    refused, ahead, behind = [tick("A", i, price=-1.0) for i in range(500)], 10, 100
    many = MarketDataRequest(batch=TickBatch(ticks=refused)).SerializeToString()
    options = [("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]
    async with (
        served(own()) as (address, _),
        connected(address) as other,
        grpc.aio.insecure_channel(address, options=options) as channel,
    ):
        client = RawCall(channel)
        # Refusals are larger than their ticks: the bridge cannot send all of them, and waits.
        for _ in range(ahead):
            await client.call.write(many)
        assert await settled(other) == 500 * ahead
        await client.call.write(BAD["a tick that is none"])
        sending = asyncio.create_task(_write_on(client, many, behind))
        # Those that were read before the failure was known, and by far not all.
        assert await settled(other) <= 500 * (ahead + behind // 2)
        assert await client.rest() is grpc.StatusCode.INVALID_ARGUMENT
        await sending


async def _write_on(client: RawCall, value: bytes, count: int) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for _ in range(count):
            await client.call.write(value)
