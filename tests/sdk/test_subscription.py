import asyncio
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from mystocks import AsyncClient, Client
from mystocks.sdk import OverloadedError, Position, RowGapError
from schemas.errors import InvalidInputError, UnavailableError
from tests.sdk.fake_bridge import details, retry_info, ticks

Code = grpc.StatusCode


def _identities(rows):
    return [(row.partition, row.row) for row in rows]


def _exactly(rows, count):
    """Rows of as many iterations as `count` takes, and of one more."""
    seen = []
    while len(seen) < count:
        seen += rows
    return seen + list(rows)


def test_rows_of_the_past_and_then_new_ones(bridge, client):
    bridge.write(ticks(10))
    with client.subscribe(start="earliest", limit=15) as rows:
        seen = _identities([next(rows) for _ in range(10)])
        bridge.write(ticks(5, seed=2))
        seen += _identities(rows)
    assert len(seen) == len(set(seen))
    assert set(seen) == bridge.identities()


def test_latest_means_after_the_subscription_stands(bridge, client):
    bridge.write(ticks(10))
    with client.subscribe(limit=3) as rows:
        assert rows.position
        bridge.write(ticks(3, seed=2))
        seen = set(_identities(rows))
    with client.subscribe(start="earliest", limit=10) as rows:
        assert seen == bridge.identities() - set(_identities(rows))


def test_symbols_and_features_are_chosen(bridge, client):
    bridge.write(ticks(20))
    with client.subscribe(
        ["IBM"], features=["triple"], start="earliest", timeout_s=0.2
    ) as subscription:
        rows = _exactly(subscription, sum(symbol == "IBM" for symbol, _, _ in ticks(20)))
    assert {row.symbol for row in rows} == {"IBM"}
    assert set(rows[-1].values) == {"triple"}
    selection = bridge.requests[-1].selection
    assert (list(selection.symbols), list(selection.names)) == (["IBM"], ["triple"])


def test_a_time_starts_and_bounds(bridge, client):
    bridge.write(ticks(20))
    start = datetime.fromtimestamp(1_362_171_600 + 12, UTC)
    with client.subscribe(start=start, timeout_s=0.2) as rows:
        assert len(_exactly(rows, 8)) == 8
    with client.subscribe(start=start + timedelta(days=1), timeout_s=0.1) as rows:
        assert list(rows) == []


def test_the_iteration_ends_after_the_time_out_and_goes_on_afterwards(bridge, client):
    with client.subscribe(timeout_s=0.1) as rows:
        assert list(rows) == []
        bridge.write(ticks(4))
        assert len(_exactly(rows, 4)) == 4


@pytest.mark.parametrize("stop", [1, 4, 9, 12])
def test_a_token_goes_on_at_exactly_the_next_row(bridge, client, stop):
    bridge.write(ticks(12))
    with client.subscribe(start="earliest", limit=stop) as rows:
        before = _identities(rows)
        token = rows.position
    with client.subscribe(start=token, timeout_s=0.2) as rows:
        after = _identities(_exactly(rows, 12 - stop))
    assert len(before) == stop
    assert len(before + after) == 12
    assert set(before + after) == bridge.identities()
    parsed = Position.parse(token)
    assert (parsed.set, parsed.topic_id) == ("ticks", bridge.topic_id)


def test_without_a_name_of_a_set_that_of_the_position_is_asked_for(bridge, client):
    bridge.write(ticks(3))
    with client.subscribe() as rows:
        assert bridge.requests[-1].selection.feature_set == ""
        assert Position.parse(rows.position).set == ""
    with client.subscribe(start=rows.position, set="ticks"):
        assert bridge.requests[-1].selection.feature_set == "ticks"
    with client.subscribe(start=Position("ticks", {})) as rows:
        assert bridge.requests[-1].selection.feature_set == "ticks"
        assert Position.parse(rows.position).set == "ticks"


def test_blocks_and_rows_can_be_mixed(bridge, client):
    bridge.write(ticks(30))
    with client.subscribe(start="earliest", limit=25) as rows:
        seen = _identities([next(rows), next(rows)])
        for frame in rows.blocks():
            assert len(frame.to_arrow()) == len(frame)
            seen += [(frame.partition, row) for row in frame.rows]
        token = rows.position
    with client.subscribe(start=token, limit=5) as rows:
        seen += _identities(rows)
    assert (len(seen), set(seen)) == (30, bridge.identities())


def test_every_row_comes_once_although_the_stream_is_cut_at_random(bridge, client):
    chance = random.Random(7)
    bridge.cut = lambda: chance.random() < 0.3
    done = threading.Event()

    def write():
        for part in range(20):
            bridge.write(ticks(15, seed=part))
        done.set()

    writer = threading.Thread(target=write)
    with client.subscribe(start="earliest", limit=300, timeout_s=5) as rows:
        writer.start()
        seen = _identities(rows)
        assert rows.reconnections > 3
    writer.join()
    assert len(seen) == 300
    assert set(seen) == bridge.identities()


def test_a_restarted_bridge_is_found_again(bridge, client):
    with client.subscribe(limit=9, timeout_s=5) as rows:
        bridge.write(ticks(5))
        seen = _identities([next(rows) for _ in range(5)])
        # Rows that are written before the reader is back are not missed.
        bridge.restart(lambda: bridge.write(ticks(4, seed=2)))
        seen += _identities(rows)
    assert (len(seen), set(seen)) == (9, bridge.identities())


def test_a_subscription_that_never_stood_gives_up_with_the_clients_time_out(bridge):
    bridge.fail("SubscribeFeatures", *[(Code.UNAVAILABLE, "expected the broker")] * 100)
    with (
        Client(bridge.address, timeout_s=0.3) as client,
        pytest.raises(UnavailableError, match="expected the broker"),
    ):
        client.subscribe()
    assert bridge.calls["SubscribeFeatures"] > 1


def test_a_reader_that_was_too_slow_comes_back_by_its_token(bridge, client):
    bridge.write(ticks(4))
    with client.subscribe(start="earliest", limit=6, timeout_s=5) as rows:
        seen = _identities([next(rows) for _ in range(4)])
        bridge.fail("SubscribeFeatures", details(Code.RESOURCE_EXHAUSTED, "slow", retry_info(0.01)))
        bridge.restart()
        bridge.write(ticks(2, seed=2))
        seen += _identities(rows)
        assert rows.reconnections >= 1
    assert (len(seen), set(seen)) == (6, bridge.identities())


def test_rows_that_were_deleted_meanwhile_are_an_error(bridge, client):
    bridge.write(ticks(30))
    with client.subscribe(start="earliest", limit=2) as rows:
        list(rows)
        token = rows.position
    bridge.oldest = [10, 10]
    with pytest.raises(RowGapError, match="deleted"):
        client.subscribe(start=token)


def test_refusals_are_raised_and_not_repeated(bridge, client):
    bridge.fail("SubscribeFeatures", details(Code.RESOURCE_EXHAUSTED, "expected fewer streams"))
    with pytest.raises(OverloadedError, match="fewer"):
        client.subscribe()
    token = str(Position("ticks", {0: 1}, {}, "anothertopic"))
    with pytest.raises(InvalidInputError, match="this topic"):
        client.subscribe(start=token)
    assert bridge.calls["SubscribeFeatures"] == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"symbols": ["A B"]}, "symbols"),
        ({"symbols": []}, "symbols"),
        ({"features": []}, "features"),
        ({"policy": "some"}, "policy"),
        ({"start": "yesterday"}, "start"),
        ({"start": 7}, "start"),
        ({"start": datetime(2024, 1, 1)}, "time zone"),
        ({"set": "ticks", "start": Position("other", {})}, "'other'"),
        ({"limit": 0}, "limit"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_arguments_are_checked_before_anything_is_sent(bridge, client, arguments, named):
    with pytest.raises(InvalidInputError, match=named):
        client.subscribe(**arguments)
    assert not bridge.calls


def test_closing_from_another_thread_ends_the_iteration(bridge, client):
    rows = client.subscribe()
    timer = threading.Timer(0.1, rows.close)
    timer.start()
    assert list(rows) == []
    assert not list(rows.blocks())


def test_a_slow_program_holds_the_bridge_back_instead_of_gathering_rows(bridge, client):
    with client.subscribe(start="earliest") as rows:
        bridge.write(ticks(3000))
        next(rows)
        time.sleep(0.2)
        # One response holds at most two blocks of three rows a partition.
        assert len(rows._core._cursor._frames) <= 4


def test_the_asynchronous_form_resumes_too(bridge):
    chance = random.Random(3)

    async def main():
        async with AsyncClient(bridge.address) as client:
            async with client.subscribe(start="earliest", limit=40, timeout_s=5) as rows:
                seen = [(row.partition, row.row) async for row in rows]
            more = client.subscribe(start=rows.position, limit=20, timeout_s=5)
            async for frame in more.blocks():
                seen += [(frame.partition, row) for row in frame.rows]
            await more.close()
            stopped = client.subscribe()
            task = asyncio.create_task(anext(stopped))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        return seen

    bridge.write(ticks(60))
    bridge.cut = lambda: chance.random() < 0.3
    seen = asyncio.run(main())
    assert (len(seen), set(seen)) == (60, bridge.identities())
