"""The hub against a real broker: every row once, from wherever a reader begins."""

import asyncio
import contextlib
from collections import Counter

import pytest

from grpc_bridge.fanout import record as record_module
from grpc_bridge.fanout.errors import (
    BadSelectionError,
    StartDeletedError,
    UnknownFeatureSetError,
)
from grpc_bridge.fanout.record import decode_columns
from mystocks.v1.market_pb2 import FeatureBlock, NextPosition, ResumeToken
from mystocks.v1.realtime_pb2 import SubscribeFeaturesResponse
from tests.grpc_bridge.fanout.rig import (
    SECOND,
    TIME,
    FeaturesTopic,
    Seen,
    check_values,
    collect,
    row_numbers,
    running,
)

pytestmark = pytest.mark.kafka


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> FeaturesTopic:
    return FeaturesTopic(kafka_bootstrap, unique)


@pytest.mark.asyncio
@pytest.mark.parametrize("as_json", [False, True])
async def test_the_first_response_says_where_it_begins_and_live_rows_follow(topic, as_json):
    topic.write(0, 5, as_json=as_json)
    async with running(topic.hub()) as hub:
        stands = asyncio.Event()
        reading = asyncio.create_task(collect(hub, topic.request(), 7, stands=stands))
        await stands.wait()
        topic.write(0, 4, as_json=as_json)
        topic.write(1, 3, as_json=as_json)
        seen = await reading
    first = seen.responses[0]
    assert not first.blocks
    assert [(n.partition, n.row, n.offset) for n in first.resume.next] == [(0, 5, 1), (1, 0, 0)]
    assert not first.resume.next[1].HasField("row")
    assert seen.in_order == {0: [5, 6, 7, 8], 1: [0, 1, 2]}
    assert [(n.row, n.offset) for n in seen.token.next] == [(9, 2), (3, 1)]
    block = next(b for r in seen.responses for b in r.blocks if b.first_row.partition == 0)
    assert (block.feature_set, block.set_hash) == (topic.set, "hash2")
    assert (block.source_first_offset, block.source_last_offset) == (1, 1)


@pytest.mark.asyncio
async def test_rows_from_earliest_pass_over_into_live_ones_without_gap_or_double(topic):
    for _ in range(40):
        topic.write(0, 50, flush=False)
        topic.write(1, 50, flush=False)
    topic.producer.flush()
    async with running(topic.hub(store_bytes=20_000)) as hub:
        readers = [
            asyncio.create_task(collect(hub, topic.request(earliest=True), 6000, pause_s=pause))
            for pause in (0, 0, 0.001, 0.01)
        ]
        for _ in range(20):
            topic.write(0, 50)
            topic.write(1, 50)
            await asyncio.sleep(0.01)
        for seen in await asyncio.gather(*readers):
            assert seen.rows == topic.everything()
            assert all(numbers == sorted(numbers) for numbers in seen.in_order.values())


@pytest.mark.asyncio
async def test_a_reader_that_is_cut_anywhere_goes_on_by_its_token(topic):
    for _ in range(30):
        topic.write(0, 7, flush=False)
        topic.write(1, 11, flush=False)
    topic.producer.flush()
    async with running(topic.hub(store_bytes=3_000)) as hub:
        seen = await collect(hub, topic.request(earliest=True), 1)
        cuts = 0
        while cuts < 60 or len(seen) < topic.everything().total():
            if cuts % 3 == 0 or len(seen) == topic.everything().total():
                topic.write(0, 7)
            request = topic.request(resume=seen.token)
            wanted = min(len(seen) + 1 + cuts % 5, topic.everything().total())
            await collect(hub, request, wanted, seen=seen)
            cuts += 1
        assert seen.rows == topic.everything()


@pytest.mark.asyncio
async def test_a_token_with_rows_alone_is_found(topic):
    for _ in range(30):
        topic.write(0, 10, flush=False)
    topic.write(1, 4)
    async with running(topic.hub()) as hub:
        token = ResumeToken(next=[NextPosition(partition=0, row=137)])
        seen = await collect(hub, topic.request(resume=token), 300 - 137 + 4)
    assert seen.in_order == {0: list(range(137, 300)), 1: [0, 1, 2, 3]}


@pytest.mark.asyncio
async def test_a_time_begins_at_that_event_time_and_stays_a_bound(topic):
    topic.write(0, 10)
    topic.write(0, 10)
    async with running(topic.hub()) as hub:
        stands = asyncio.Event()
        request = topic.request(since_ns=TIME + 15 * SECOND)
        reading = asyncio.create_task(collect(hub, request, 13, stands=stands))
        await stands.wait()
        topic.write(1, 20)  # rows 0 to 14 are older
        topic.write(0, 3)
        seen = await reading
    assert seen.in_order == {0: [*range(15, 23)], 1: [*range(15, 20)]}


@pytest.mark.asyncio
async def test_symbols_and_names_are_chosen_and_the_token_advances_past_the_rest(topic):
    async with running(topic.hub()) as hub:
        topic.write(0, 10)
        await hub.caught_up(topic.set)
        stands = asyncio.Event()
        request = topic.request(symbols=["IBM"], names=["rsi_14"])
        reading = asyncio.create_task(collect(hub, request, 2, stands=stands))
        await stands.wait()
        topic.write(1, 5, symbols=("OTHER",))
        topic.write(0, 6)
        seen = await reading
    assert seen.in_order == {0: [10, 13], 1: []}
    block = seen.responses[-1].blocks[0]
    assert (list(block.names), list(block.symbols)) == (["rsi_14"], ["IBM"])
    assert list(block.row_offset) == [0, 3]
    assert [(n.row, n.offset) for n in seen.token.next] == [(16, 2), (5, 1)]


@pytest.mark.asyncio
async def test_rows_repeated_by_an_at_least_once_job_come_once(topic):
    for first, count in ((0, 10), (10, 10), (5, 10)):
        topic.write(0, count, first_row=first)
    async with running(topic.hub()) as hub:
        reading = asyncio.create_task(collect(hub, topic.request(earliest=True), 30))
        stands = asyncio.Event()
        live = asyncio.create_task(collect(hub, topic.request(), 10, stands=stands))
        await stands.wait()
        for first, count in ((10, 10), (15, 10), (20, 10), (0, 10)):
            topic.write(0, count, first_row=first)
        assert (await reading).in_order[0] == list(range(30))
        assert (await live).in_order[0] == list(range(20, 30))
        await hub.caught_up(topic.set)
        assert hub.next_rows(topic.set) == {0: 30}


@pytest.mark.asyncio
async def test_a_listener_gets_rows_of_symbols_that_become_more(topic):
    async with running(topic.hub(linger_ms=50)) as hub, hub.listen(topic.set, {"IBM"}) as listener:
        topic.write(0, 6)
        await hub.caught_up(topic.set)
        first = listener.take_nowait()
        assert listener.take_nowait() is None
        listener.add_symbols({"AAPL", "IBM"})
        topic.write(1, 3)
        second = await listener.take()
        assert listener.rows_sent == 4
    (block,) = map(FeatureBlock.FromString, (b.data for b in first.blocks))
    assert row_numbers(block) == [1, 4]
    check_values(block)
    (encoded,) = second.blocks
    assert (encoded.partition, encoded.rows, encoded.source_last_offset) == (1, 2, 0)
    assert row_numbers(FeatureBlock.FromString(encoded.data)) == [0, 1]
    assert [n.row for n in ResumeToken.FromString(second.token).next] == [6, 3]


@pytest.mark.asyncio
async def test_a_listener_s_symbols_grow_in_place_and_only_it_gets_their_rows(topic):
    async with (
        running(topic.hub(linger_ms=0)) as hub,
        hub.listen(topic.set) as listener,
        hub.listen(topic.set) as other,
    ):
        symbols = listener.symbols
        for symbol in ("AAPL", "IBM", "IBM"):
            listener.add_symbols({symbol})
        assert listener.symbols is symbols
        assert symbols == {"AAPL", "IBM"}
        topic.write(0, 3)
        await hub.caught_up(topic.set)
        assert listener.take_nowait().rows == 2
        assert other.take_nowait() is None


@pytest.mark.asyncio
async def test_a_set_without_name_is_that_of_the_settings(topic):
    topic.write(0, 3)
    async with running(topic.hub()) as hub:
        assert (await hub.describe()).name == topic.set
        assert hub.next_rows() == {0: 3}
        request = topic.request(earliest=True)
        request.selection.feature_set = ""
        assert (await collect(hub, request, 3)).rows == topic.everything()
        async with hub.listen() as listener:
            listener.add_symbols({"IBM"})
            topic.write(0, 3)
            await hub.caught_up()
            assert (await listener.take()).rows == 1


@pytest.mark.asyncio
async def test_what_a_request_asks_for_wrongly_is_named(topic):
    topic.write(0, 5)
    good = ResumeToken(next=[NextPosition(partition=0, row=3, offset=0)])
    async with running(topic.hub()) as hub:
        topic_id = (await hub.describe(topic.set)).topic_id

        def token(**place):
            return topic.request(resume=ResumeToken(next=[NextPosition(**place)]))

        async def refused(request, error, text):
            with pytest.raises(error, match=text):
                await collect(hub, request, 1)

        bad = BadSelectionError
        await refused(topic.request(symbols=["AAPL", "a b"]), bad, r"selection.symbols\[1\]")
        await refused(topic.request(names=["nope"]), bad, "has sma_3, rsi_14, was 'nope'")
        await refused(topic.request(policy=9), bad, "selection.policy")
        await refused(token(partition=7), bad, r"resume.next\[0\].partition")
        await refused(token(partition=0, row=-1), bad, r"resume.next\[0\].row")
        other = ResumeToken(topic_id=topic_id[:-2] + "xx", next=good.next)
        await refused(topic.request(resume=other), bad, "deleted and created again")
        twice = ResumeToken(next=[*good.next, *good.next])
        await refused(topic.request(resume=twice), bad, "0 twice")
        await refused(token(partition=0, offset=9), StartDeletedError, "offset from 0 to 1")
        await refused(token(partition=0, row=6, offset=1), StartDeletedError, "up to 5")
        await refused(token(partition=0, row=6), StartDeletedError, "up to 5")
        missing = topic.request()
        missing.selection.feature_set = "nobody-made-this"
        await refused(missing, UnknownFeatureSetError, "start role features")
        missing.selection.feature_set = "a/b"
        await refused(missing, bad, "selection.feature_set")
        good.topic_id = topic_id
        seen = await collect(hub, topic.request(resume=good), 2)
        assert seen.in_order[0] == [3, 4]


@pytest.mark.asyncio
async def test_an_unknown_name_is_refused_as_soon_as_the_set_is_known(topic):
    async with running(topic.hub()) as hub:
        stands = asyncio.Event()
        reading = asyncio.create_task(collect(hub, topic.request(names=["nope"]), 1, stands=stands))
        await stands.wait()
        topic.write(0, 1)
        with pytest.raises(BadSelectionError, match="nope"):
            await reading
        assert (await hub.describe(topic.set)).columns == ("sma_3", "rsi_14")


@pytest.mark.asyncio
async def test_a_name_is_refused_also_if_the_set_becomes_known_while_the_past_is_read(topic):
    async with running(topic.hub()) as hub:
        request = topic.request(names=["nope"], earliest=True)
        async with hub.subscribe(request.selection, request) as subscription:
            await anext(subscription)
            topic.write(0, 1)
            await hub.caught_up(topic.set)
            with pytest.raises(BadSelectionError, match="nope"):
                await asyncio.wait_for(anext(subscription), 5)


@pytest.mark.asyncio
async def test_a_record_that_is_no_block_is_passed_over(topic):
    topic.write(0, 3)
    topic.producer.produce(topic.topic, b"hello", partition=0, headers=[("first_row", b"3")])
    topic.producer.produce(topic.topic, b"hello", partition=0)
    topic.write(0, 3)
    async with running(topic.hub()) as hub:
        stands = asyncio.Event()
        reading = asyncio.create_task(collect(hub, topic.request(earliest=True), 9, stands=stands))
        await stands.wait()
        await asyncio.sleep(0.2)
        topic.producer.produce(topic.topic, b"hello", partition=0)
        topic.write(0, 3)
        assert (await reading).rows == topic.everything()


@pytest.mark.asyncio
async def test_large_blocks_make_responses_that_every_client_accepts(topic):
    async with running(topic.hub(store_bytes=1000)) as hub:
        stands = asyncio.Event()
        live = asyncio.create_task(
            collect(hub, topic.request(), 120_000, seen=Seen(check=False), stands=stands)
        )
        await stands.wait()
        for _ in range(3):
            topic.write(0, 20_000, flush=False)
            topic.write(1, 20_000, flush=False)
        topic.producer.flush()
        past = collect(hub, topic.request(earliest=True), 120_000, seen=Seen(check=False))
        for seen in await asyncio.gather(live, past):
            assert seen.rows == topic.everything()
            assert max(response.ByteSize() for response in seen.responses) < 2 * 1024**2


@pytest.mark.asyncio
@pytest.mark.parametrize("restarted", [False, True])
async def test_many_readers_that_come_back_at_once_decode_each_record_once(
    topic, monkeypatch, restarted
):
    decoded = Counter()

    def counted(value: bytes):
        decoded[value] += 1
        return decode_columns(value)

    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(running(topic.hub()))
        token = (await collect(hub, topic.request(), 0)).token
        for _ in range(200):
            topic.write(0, 5, flush=False)
        topic.producer.flush()
        await hub.caught_up(topic.set)
        if restarted:
            hub = await stack.enter_async_context(running(topic.hub()))
        monkeypatch.setattr(record_module, "decode_columns", counted)
        readers = [collect(hub, topic.request(resume=token), 1000) for _ in range(50)]
        for seen in await asyncio.gather(*readers):
            assert seen.rows == topic.everything()
    # A feed looks at a record, before the counting, to learn the names.
    assert len(decoded) >= 199
    # Two of the readers may read the topic at the same time, the others find what these have read.
    assert max(decoded.values()) <= (2 if restarted else 1)


@pytest.mark.asyncio
async def test_who_has_the_last_of_the_past_is_in_the_present_however_slow(topic):
    topic.write(0, 5)
    async with running(topic.hub()) as hub:
        request = topic.request(resume=(await collect(hub, topic.request(), 0)).token)
        topic.write(0, 3)
        await hub.caught_up(topic.set)
        async with hub.subscribe(request.selection, request) as subscription:
            seen = Seen()
            for _ in range(2):
                seen.add(SubscribeFeaturesResponse.FromString(await anext(subscription)))
            assert seen.in_order[0] == [5, 6, 7]
            assert subscription.queued_bytes == 0
            topic.write(0, 4)
            await hub.caught_up(topic.set)
            assert subscription.queued_bytes > 0
            seen.add(SubscribeFeaturesResponse.FromString(await anext(subscription)))
            assert seen.in_order[0] == [5, 6, 7, 8, 9, 10, 11]
