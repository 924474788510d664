"""Requests and replies on a real broker: who gets what, and what is said when nobody answers."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schemas import headers as names
from schemas.requests import Code, RequestFailedError
from streams.local.stack import LocalStack
from streams.requests.envelope import Envelope
from streams.requests.requester import Requester
from tests.streams.requests.toy import PARTITIONS, Rig, await_true

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio]

TIMEOUT_S = 20.0


@asynccontextmanager
async def requesting(rig: Rig, **options) -> AsyncIterator[Requester]:
    requester = Requester(rig.settings, rig.topics, **options)
    await requester.start()
    try:
        yield requester
    finally:
        await requester.close()


def envelope_for(rig: Rig, **changes) -> Envelope:
    values = {
        "request_id": b"1",
        "requester": b"somebody",
        "group": rig.topics.group,
        "reply_topic": rig.topics.replies,
        "reply_partition": 0,
        "deadline_ms": int((time.time() + 20) * 1000),
    }
    return Envelope(**values | changes)


async def test_each_of_many_requesters_gets_the_replies_to_its_own_requests(rig):
    rig.work()
    # More than there are partitions, so that some share one.
    requesters = [Requester(rig.settings, rig.topics) for _ in range(PARTITIONS + 2)]
    await asyncio.gather(*(requester.start() for requester in requesters))
    asked = [(r, b"request %d of %d" % (i, n)) for n, r in enumerate(requesters) for i in range(50)]
    replies = await asyncio.gather(*(r.ask(value, TIMEOUT_S) for r, value in asked))
    assert [reply.value for reply in replies] == [value.upper() for _, value in asked]
    assert not any(reply.failed for reply in replies)
    assert not any(requester.in_flight for requester in requesters)
    await asyncio.gather(*(requester.close() for requester in requesters))


async def test_requests_are_shared_among_the_workers_of_the_group(rig):
    rig.work(" by one")
    rig.work(" by two")
    async with requesting(rig) as requester:
        found = set()
        deadline = time.monotonic() + 20
        while len(found) < 2:
            assert time.monotonic() < deadline
            found.add((await requester.ask(b"word", TIMEOUT_S)).value)
    assert found == {b"WORD by one", b"WORD by two"}


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (b"unparsable", "INVALID_ARGUMENT|word[3]|expected a word", ""),
        (b"large", "RESOURCE_EXHAUSTED", "ask for less"),
        (b"bug", "INTERNAL", "ZeroDivisionError"),
    ],
)
async def test_a_request_that_fails_is_answered_and_the_next_one_too(rig, asked, code, says):
    worker = rig.work()
    async with requesting(rig) as requester:
        reply = await requester.ask(asked, TIMEOUT_S)
        assert reply.failed
        assert reply.value.decode().startswith(code)
        assert says in reply.value.decode()
        assert b"secret" not in reply.value
        assert (await requester.ask(b"next", TIMEOUT_S)).value == b"NEXT"
    assert worker.count(code.split("|")[0]) == 1
    assert worker.count("OK") == 1


async def test_slow_requests_hold_up_neither_others_nor_each_other_without_bound(rig):
    worker = rig.work()
    async with requesting(rig) as requester:
        slow = [asyncio.create_task(requester.ask(b"slow", TIMEOUT_S)) for _ in range(40)]
        done, held = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        assert (await requester.ask(b"quick", TIMEOUT_S)).value == b"QUICK"
        # Those for which there is neither a thread nor a place to wait were told at once.
        refused = [task.result().value for task in done]
        assert all(b"RESOURCE_EXHAUSTED" in value and value.endswith(b"|1.0") for value in refused)
        assert held
        worker.handler.hold.set()
        replies = await asyncio.gather(*slow)
        assert sum(reply.value == b"SLOW" for reply in replies) == 32
        assert sum(reply.failed for reply in replies) == 8


async def test_nobody_there_to_answer_is_said_at_once(rig):
    async with requesting(rig) as requester:
        with pytest.raises(RequestFailedError, match=r"none is running.*start role") as failure:
            await asyncio.wait_for(requester.ask(b"word", 600), 10)
        assert failure.value.code == Code.UNAVAILABLE
        rig.work()
        assert (await requester.ask(b"word", TIMEOUT_S)).value == b"WORD"


async def test_a_worker_that_says_nothing_is_given_up_before_the_deadline(rig):
    rig.work()
    async with requesting(rig) as requester:
        with pytest.raises(RequestFailedError) as failure:
            await requester.ask(b"stuck", 2.0)
        assert failure.value.code == Code.UNAVAILABLE
        assert f"expected a reply of a {rig.topics.kind} worker within 1.6 s" in str(failure.value)
        assert requester.in_flight == 0


async def test_requests_past_their_deadline_are_passed_over(rig):
    worker = rig.work()
    headers = envelope_for(rig, deadline_ms=int(time.time() * 1000) - 1).as_headers()
    rig.write(b"old", headers)
    await_true(lambda: worker.count("EXPIRED") == 1)
    assert b"old" not in worker.handler.seen


async def test_a_slow_request_whose_deadline_passes_while_it_waits_for_a_thread_is_not_begun(rig):
    worker = rig.work()
    for value in (b"slow one", b"slow two"):
        rig.write(value, envelope_for(rig).as_headers())
    # They hold both threads.
    await_true(lambda: len(worker.handler.begun) == 2)
    deadline_ms = int(time.time() * 1000) + 1000
    rig.write(b"slow late", envelope_for(rig, deadline_ms=deadline_ms).as_headers())
    await_true(lambda: b"slow late" in worker.handler.seen or worker.count("EXPIRED") == 1)
    await_true(lambda: time.time() * 1000 > deadline_ms)
    worker.handler.hold.set()
    await_true(lambda: worker.count("EXPIRED") == 1)
    assert sorted(worker.handler.begun) == [b"slow one", b"slow two"]


async def test_records_that_are_no_requests_of_the_group_are_passed_over(rig):
    worker = rig.work()
    rig.write(b"bare", None)
    rig.write(b"odd", [(names.REQUEST_ID, b"1"), (names.DEADLINE_MS, b"soon")])
    rig.write(b"elsewhere", envelope_for(rig, reply_topic="market.ticks").as_headers())
    rig.write(b"nowhere", envelope_for(rig, reply_partition=PARTITIONS).as_headers())
    rig.write(b"others", envelope_for(rig, group="another.group").as_headers())
    await_true(lambda: worker.count("MALFORMED") == 4 and worker.count("FOREIGN") == 1)
    async with requesting(rig) as requester:
        assert (await requester.ask(b"word", TIMEOUT_S)).value == b"WORD"
    assert worker.handler.seen == [b"word"]


async def test_too_many_requests_at_once_are_refused_with_when_to_come_again(rig):
    worker = rig.work()
    async with requesting(rig, most_in_flight=2) as requester:
        waiting = [asyncio.create_task(requester.ask(b"stuck", TIMEOUT_S)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(RequestFailedError) as failure:
            await requester.ask(b"one more", TIMEOUT_S)
        assert failure.value.code == Code.RESOURCE_EXHAUSTED
        assert failure.value.retry_after_s > 0
        worker.handler.hold.set()
        await asyncio.gather(*waiting)
        assert (await requester.ask(b"word", TIMEOUT_S)).value == b"WORD"


async def test_a_request_too_large_for_a_record_is_refused(rig):
    async with requesting(rig) as requester:
        with pytest.raises(RequestFailedError, match="bytes") as failure:
            await requester.ask(bytes(1024**2), TIMEOUT_S)
        assert failure.value.code == Code.INVALID_ARGUMENT


async def test_a_caller_that_leaves_is_forgotten_and_its_reply_harms_nobody(rig):
    worker = rig.work()
    async with requesting(rig) as requester:
        gone = asyncio.create_task(requester.ask(b"slow", TIMEOUT_S))
        await asyncio.to_thread(await_true, lambda: worker.handler.seen == [b"slow"])
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert requester.in_flight == 0
        worker.handler.hold.set()
        assert (await requester.ask(b"word", TIMEOUT_S)).value == b"WORD"


async def test_closing_tells_those_who_wait(rig):
    rig.work()
    requester = Requester(rig.settings, rig.topics)
    await requester.start()
    waiting = asyncio.create_task(requester.ask(b"stuck", TIMEOUT_S))
    await asyncio.sleep(0)
    await requester.close()
    with pytest.raises(RequestFailedError) as failure:
        await waiting
    assert failure.value.code == Code.UNAVAILABLE
    with pytest.raises(RequestFailedError):
        await requester.ask(b"word", TIMEOUT_S)


async def test_answered_requests_are_not_taken_again_by_the_next_worker(rig):
    first = rig.work()
    async with requesting(rig) as requester:
        await asyncio.gather(*(requester.ask(b"%d" % i, TIMEOUT_S) for i in range(30)))
        await asyncio.to_thread(first.stop)
        rig.workers.clear()
        second = rig.work()
        assert (await requester.ask(b"word", TIMEOUT_S)).value == b"WORD"
    assert second.handler.seen == [b"word"]


async def test_a_lost_broker_is_named(rig, tmp_path):
    stack = LocalStack(tmp_path / "broker", quick_start=True, redis=False)
    kafka = rig.settings.kafka.model_copy(update={"bootstrap_servers": stack.start().kafka})
    rig.settings = rig.settings.model_copy(update={"kafka": kafka})
    try:
        rig.make_topics()
        async with requesting(rig) as requester:
            stack.stop()
            with pytest.raises(RequestFailedError, match="expected the broker to take") as failure:
                await requester.ask(b"word", 1.5)
            assert failure.value.code == Code.UNAVAILABLE
    finally:
        stack.stop()
