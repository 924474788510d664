"""A Python client without generated code: subscriptions that are cut and taken up again."""

from collections import defaultdict

import grpc
import pytest

from tests.clients.reflected import now_ns, prices, rows_of, send_and_drain, ticks_of

pytestmark = pytest.mark.kafka


class Subscription:
    """A `SubscribeFeatures` call that is cut and taken up again."""

    def __init__(self, client, **selection):
        self._client = client
        self._selection = selection
        self.token = None
        self.rows = []

    def open(self, **start):
        if self.token is not None:
            start = {"resume": self.token}
        self.call = self._client.call(
            "RealTimeService/SubscribeFeatures", selection=self._selection, **start
        )
        first = next(self.call)
        assert not first.blocks
        assert first.resume.topic_id
        self.token = first.resume

    def take(self):
        response = next(self.call)
        self.rows += rows_of(response.blocks)
        if response.HasField("resume"):
            self.token = response.resume

    def take_until(self, condition):
        while not condition(self.rows):
            self.take()


def test_subscription_of_a_symbol_that_is_cut_resumes_without_gap_or_double(client, symbol):
    ticks = ticks_of(symbol, prices(200), now_ns())
    subscription = Subscription(client, symbols=[symbol])
    subscription.open()
    for part in range(10):
        # Each part is a block at least, since the next is sent when its rows are back.
        send_and_drain(client, ticks[part * 20 : part * 20 + 20])
        if part % 3 == 1:
            if part % 2:
                subscription.take()
            subscription.call.cancel()
            subscription.open()
    subscription.take_until(lambda rows: len(rows) >= 200)
    subscription.call.cancel()
    assert [row.event_time_ns for row in subscription.rows] == [t["event_time_ns"] for t in ticks]


def test_every_row_of_the_topic_comes_once_however_often_the_reader_is_cut(client, symbol):
    ticks = ticks_of(symbol, prices(500), now_ns())
    for part in range(5):
        send_and_drain(client, ticks[part * 100 : part * 100 + 100])
    newest = ticks[-1]["event_time_ns"]
    subscription = Subscription(client)
    subscription.open(earliest=True)
    while not any(r.symbol == symbol and r.event_time_ns == newest for r in subscription.rows):
        subscription.take()
        subscription.call.cancel()
        subscription.open()
    subscription.call.cancel()
    numbers = defaultdict(list)
    for row in subscription.rows:
        numbers[row.partition].append(row.row)
    for partition, rows in numbers.items():
        assert rows == list(range(len(rows))), f"partition {partition}"


def test_subscription_since_a_time_begins_with_the_first_row_of_it(client, symbol):
    ticks = ticks_of(symbol, prices(50), now_ns())
    send_and_drain(client, ticks)
    since = ticks[30]["event_time_ns"]
    subscription = Subscription(client, symbols=[symbol], names=["ema_12"])
    subscription.open(since_ns=since)
    subscription.take_until(lambda rows: len(rows) >= 20)
    subscription.call.cancel()
    assert [r.event_time_ns for r in subscription.rows] == [t["event_time_ns"] for t in ticks[30:]]
    assert set(subscription.rows[0].values) == {"ema_12"}


def test_token_of_another_topic_is_refused(client):
    call = client.call(
        "RealTimeService/SubscribeFeatures",
        resume={"topic_id": "AAAAAAAAAAAAAAAAAAAAAA", "next": [{"partition": 0, "row": 1}]},
    )
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "topic" in refused.value.details()
