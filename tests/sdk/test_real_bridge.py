"""The client against real roles: features, compute and bridge on the session's broker."""

import contextlib
import itertools
import signal
import threading
import time
import uuid
from dataclasses import dataclass

import pytest

from mystocks import Client, FeatureSubscriber, TickProducer
from mystocks.sdk import (
    InvalidRequestError,
    Position,
    PreconditionError,
    StreamInterruptedError,
)
from tests.grpc_bridge.rig import BridgeProcess, bridge_settings, create_topics
from tests.roles.compute_rig import ComputeRole
from tests.roles.rig import FeaturesRig
from tests.sdk.cutting_proxy import CuttingProxy

pytestmark = pytest.mark.kafka

_TIME = 1_700_000_000_000_000_000
_PATIENCE_S = 30


@dataclass
class _Live:
    name: str
    rig: FeaturesRig
    bridge: BridgeProcess


@pytest.fixture(scope="module")
def live(kafka_bootstrap, redis_url, tmp_path_factory):
    name = f"t{uuid.uuid4().hex[:12]}"
    data_dir = tmp_path_factory.mktemp("live")
    settings = bridge_settings(name, kafka_bootstrap, redis_url, data_dir)
    # Workers of other tests answer for their own environment.
    settings = settings.model_copy(update={"environment": name})
    rig = FeaturesRig(name, kafka_bootstrap, redis_url, data_dir, indicators=["sma_2", "ema_3"])
    rig.settings = rig.settings.model_copy(update={"environment": name})
    create_topics(settings)
    bridge, compute = BridgeProcess(settings), ComputeRole(settings)
    rig.start()
    compute.await_ready()
    made = _Live(name, rig, bridge)
    yield made
    made.bridge.end()
    compute.process.terminate()
    compute.process.wait(30)
    rig.stop()


@pytest.fixture
def client(live):
    with Client(live.bridge.address, timeout_s=_PATIENCE_S) as made:
        yield made


_numbers = itertools.count()


@pytest.fixture
def symbol():
    """A symbol of the test's own."""
    return f"SYM{next(_numbers)}"


def _ticks(symbol, count, first=0):
    return [(symbol, _TIME + i * 10**9, 100.0 + i % 7) for i in range(first, first + count)]


def test_a_stream_gets_its_own_rows_and_they_are_the_latest(live, client, symbol):
    with client.stream(timeout_s=_PATIENCE_S) as stream:
        stream.send_many(_ticks(symbol, 700))
        for tick in _ticks(symbol, 50, first=700):
            stream.send(*tick)
        stream.close()
        rows = list(stream)
    assert stream.acknowledged == 750
    assert Position.parse(stream.position).set == live.name
    assert [(r.symbol, r.event_time_ns, r.price) for r in rows] == _ticks(symbol, 750)
    assert [r.values["sma_2"] for r in rows[:2]] == [None, 100.5]
    identities = [r.row for r in rows]
    assert len({r.partition for r in rows}) == 1
    assert identities == list(range(identities[0], identities[0] + 750))
    (newest,) = client.latest(symbol)  # the bridge's own set needs no name
    assert newest.event_time_ns == rows[-1].event_time_ns
    assert newest.values == rows[-1].values
    assert list(client.latest(symbol, set=live.name)) == [newest]
    assert client.latest("NONE").unknown_symbols == ("NONE",)


def test_refused_ticks_are_named_and_the_others_come_back(client, symbol):
    with client.stream(check=False, timeout_s=_PATIENCE_S) as stream:
        stream.send_many(_ticks(symbol, 1))
        for values in (("A B", _TIME, 1.0), (symbol, 5, 1.0), (symbol, _TIME, -1.0)):
            stream.send(*values)
        stream.send(symbol, _TIME + 10**9, float("nan"))
        stream.send(symbol, _TIME + 2 * 10**9, 7.0)
        stream.close()
        assert [row.price for row in stream] == [100.0, 7.0]
    assert [refusal.field for refusal in stream.refused] == [
        "symbol",
        "event_time_ns",
        "price",
        "price",
    ]
    assert stream.acknowledged == 2


def test_every_row_comes_exactly_once_although_connections_are_cut_at_random(live):
    """The cuts fall into anything: headers, messages, between two messages."""
    count, symbols = 12_000, [f"CUT{i}" for i in range(40)]
    expected = [(s, t) for i in range(count // 40) for s, t, _ in _cross_section(symbols, i)]

    def produce():
        with TickProducer(
            live.rig.kafka, topic=live.rig.source, settings=live.rig.settings, batch_ticks=40
        ) as producer:
            for i in range(count // 40):
                producer.send_many(_cross_section(symbols, i))
                time.sleep(0.005)  # so that cuts fall between rows that are new and rows that wait

    producing = threading.Thread(target=produce)
    seen = []
    with contextlib.closing(CuttingProxy(live.bridge.address, 100, 600_000, seed=11)) as proxy:
        with (
            Client(proxy.address, timeout_s=_PATIENCE_S) as client,
            client.subscribe(
                symbols, set=live.name, start="earliest", limit=count, timeout_s=_PATIENCE_S
            ) as rows,
        ):
            producing.start()
            seen += [(r.partition, r.row, r.symbol, r.event_time_ns) for r in rows]
            token = rows.position
        producing.join()
        assert proxy.cuts >= 3
    assert len({row[:2] for row in seen}) == count, "each identity once"
    assert sorted(row[2:] for row in seen) == sorted(expected)
    with Client(live.bridge.address) as client:
        assert not list(client.subscribe(symbols, set=live.name, start=token, timeout_s=0.5))


def _cross_section(symbols, i):
    return [(symbol, _TIME + i * 10**9, 50.0 + i % 11) for symbol in symbols]


def test_without_a_name_the_bridge_s_own_set_is_read_and_its_token_has_the_name(
    live, client, symbol
):
    with client.subscribe(symbol, limit=4, timeout_s=_PATIENCE_S) as rows:
        fresh = rows.position  # no row has told the name yet
        with client.stream(rows=False) as stream:
            stream.send_many(_ticks(symbol, 4))
        seen = [row.event_time_ns for row in rows]
        assert Position.parse(rows.position).set == live.name
    assert seen == [time for _, time, _ in _ticks(symbol, 4)]
    for start in (fresh, Position.parse(fresh)):
        with client.subscribe(symbol, start=start, limit=4, timeout_s=_PATIENCE_S) as again:
            assert [row.event_time_ns for row in again] == seen


def test_the_latest_rows_end_with_the_newest_one(client, symbol):
    newest = _ticks(symbol, 2000)[-1]
    with client.subscribe(symbol, policy="latest", timeout_s=_PATIENCE_S) as rows:
        with client.stream(rows=False) as stream:
            stream.send_many(_ticks(symbol, 2000))
        times = []
        for row in rows:
            times.append(row.event_time_ns)
            if row.event_time_ns == newest[1]:
                break
        position = rows.position
    assert times == sorted(set(times))
    assert not list(client.subscribe(symbol, policy="latest", start=position, timeout_s=0.3))


def test_tokens_of_both_subscribers_are_the_same_thing(live, client, symbol):
    with client.stream(timeout_s=_PATIENCE_S) as stream:
        stream.send_many(_ticks(symbol, 30))
        stream.close()
        sent = [(row.partition, row.row) for row in stream]
    options = {"set": live.name, "timeout_s": _PATIENCE_S, "limit": 10}
    kafka = {"bootstrap_servers": live.rig.kafka, "settings": live.rig.settings}
    with client.subscribe(symbol, start="earliest", **options) as first:
        seen = [(row.partition, row.row) for row in first]
    with FeatureSubscriber(symbols=[symbol], start=first.position, **kafka, **options) as second:
        seen += [(row.partition, row.row) for row in second]
    with client.subscribe(symbol, start=str(second.position), **options) as third:
        seen += [(row.partition, row.row) for row in third]
    assert seen == sent


def test_a_bridge_that_was_killed_is_found_again_and_a_stream_says_what_is_open(live, symbol):
    address = live.bridge.address
    with Client(address, timeout_s=_PATIENCE_S) as client:
        rows = client.subscribe(symbol, set=live.name, limit=20, timeout_s=_PATIENCE_S)
        stream = client.stream(timeout_s=_PATIENCE_S)
        stream.__enter__()
        stream.send_many(_ticks(symbol, 10))
        stream.flush()
        seen = [next(rows) for _ in range(10)]
        live.bridge.end(signal.SIGKILL)
        with pytest.raises(StreamInterruptedError) as caught:
            list(stream)
        assert caught.value.unacknowledged == []
        with contextlib.suppress(StreamInterruptedError):
            stream.__exit__(None, None, None)
        port = int(address.rpartition(":")[2])
        live.bridge = BridgeProcess(live.bridge.settings, port=port)
        assert live.bridge.address == address
        with client.stream(rows=False) as stream:
            stream.send_many(_ticks(symbol, 10, first=10))
        seen += list(rows)
        assert rows.reconnections >= 1
    assert [(r.symbol, r.event_time_ns, r.price) for r in seen] == _ticks(symbol, 20)


def test_features_on_demand_are_those_of_the_stream(client, symbol):
    closes = [100.0 + i % 7 for i in range(60)]
    own = client.compute(["sma_2", "ema_3"], {"close": closes})
    with client.stream(timeout_s=_PATIENCE_S) as stream:
        stream.send_many(_ticks(symbol, 60))
        stream.close()
        live_rows = list(stream)
    assert [row.values for row in own] == [row.values for row in live_rows], "the same kernel"
    newest = client.compute(["sma_2", "ema_3"], closes, last=5)
    assert list(newest) == list(own.part(55))
    with pytest.raises(InvalidRequestError, match="sma"):
        client.compute("smaa_2", {"close": closes})
    with pytest.raises(PreconditionError, match="sma_50 needs 50 rows"):
        client.compute("sma_50", [1.0, 2.0])


def test_statistics_show_the_open_streams(live, client, symbol):
    with client.stream(timeout_s=_PATIENCE_S) as stream:
        stream.send_many(_ticks(symbol, 3))
        stream.flush()
        stats = client.stats()
        assert len(client.stats(set=live.name).partitions) == len(stats.partitions)
    (mine,) = [s for s in stats.streams if s.ticks_received == 3]
    assert (mine.ticks_acknowledged, mine.method.rpartition("/")[2]) == (3, "StreamMarketData")
    assert len(stats.partitions) == 4
