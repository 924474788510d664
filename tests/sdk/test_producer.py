import threading
import time
from collections import defaultdict

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from mystocks.sdk import DeliveryError, TickProducer
from mystocks.v1.market_pb2 import TickBatch
from schemas.errors import InvalidInputError, UnavailableError
from schemas.partitioner import partition_for
from schemas.topics import market_data_config

pytestmark = pytest.mark.kafka

_TIME = 1_362_171_600_000_000_000
_PARTITIONS = 3


def _create(kafka_bootstrap: str, new: NewTopic) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([new])[new.topic].result(10)


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> str:
    name = f"{unique}.ticks"
    new = NewTopic(name, num_partitions=_PARTITIONS, config=market_data_config(-1))
    _create(kafka_bootstrap, new)
    return name


def _records(kafka_bootstrap, topic):
    consumer = Consumer(
        {"bootstrap.servers": kafka_bootstrap, "group.id": topic, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(_PARTITIONS)])
    found, ended = [], set()
    while len(ended) < _PARTITIONS:
        message = consumer.poll(10)
        assert message is not None
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF
            ended.add(message.partition())
        else:
            found.append(message)
    consumer.close()
    return found


def _ticks_of(message, encoding):
    value = message.value()
    if encoding == "json":
        decoded = orjson.loads(value)
        ticks = decoded if isinstance(decoded, list) else [decoded]
    elif encoding == "arrow":
        ticks = pa.ipc.open_stream(value).read_all().to_pylist()
    else:
        ticks = [
            {
                "symbol": t.symbol,
                "event_time_ns": t.event_time_ns,
                "price": t.price,
                "size": t.size,
                "bid": t.bid if t.HasField("bid") else None,
            }
            for t in TickBatch.FromString(value).ticks
        ]
    return [
        (t["symbol"], t["event_time_ns"], t["price"], t.get("size") or 0.0, t.get("bid"))
        for t in ticks
    ]


@pytest.mark.parametrize("encoding", ["batch", "json", "arrow"])
def test_every_tick_arrives_in_order_on_the_partition_of_its_symbol(
    kafka_bootstrap, topic, encoding
):
    ticks = [
        (f"S{i % 7}", _TIME + i * 1_000_003, 1.0 + i, float(i), None if i % 3 else 0.5 + i)
        for i in range(1000)
    ]
    names = ("symbol", "event_time_ns", "price", "size", "bid")
    with TickProducer(kafka_bootstrap, topic=topic, format=encoding, batch_ticks=50) as producer:
        for symbol, event_time_ns, price, size, bid in ticks[:300]:
            producer.send(symbol, event_time_ns, price, size, bid=bid)
        producer.send_many(ticks[300:600])
        producer.send_many(dict(zip(names, zip(*ticks[600:], strict=True), strict=True)))
    assert (producer.sent, producer.delivered, producer.failed) == (1000, 1000, 0)
    came = defaultdict(list)
    for message in _records(kafka_bootstrap, topic):
        inside = _ticks_of(message, encoding)
        assert 1 <= len(inside) <= 50
        assert message.timestamp()[1] == max(t[1] for t in inside) // 1_000_000
        symbols = {t[0] for t in inside}
        assert message.key() == (symbols.pop().encode() if len(symbols) == 1 else None)
        for tick in inside:
            assert message.partition() == partition_for(tick[0], _PARTITIONS)
            came[tick[0]].append(tick)
    assert came == {s: [t for t in ticks if t[0] == s] for s in {t[0] for t in ticks}}


def test_a_lone_tick_goes_out_after_the_linger_without_another_call(kafka_bootstrap, topic):
    with TickProducer(kafka_bootstrap, topic=topic, linger_ms=5) as producer:
        producer.send("AAPL", _TIME, 430.47)
        deadline = time.monotonic() + 10
        while producer.delivered == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert producer.delivered == 1


def test_single_json_ticks_are_plain_objects(kafka_bootstrap, topic):
    with TickProducer(kafka_bootstrap, topic=topic, format="json", batch_ticks=1) as producer:
        producer.send("AAPL", _TIME, 430.47, 100)
    (message,) = _records(kafka_bootstrap, topic)
    assert orjson.loads(message.value()) == {
        "symbol": "AAPL",
        "event_time_ns": _TIME,
        "price": 430.47,
        "size": 100.0,
    }
    assert message.key() == b"AAPL"


def test_threads_may_share_a_producer(kafka_bootstrap, topic):
    with TickProducer(kafka_bootstrap, topic=topic, batch_ticks=7, linger_ms=1) as producer:

        def work(name):
            for i in range(500):
                producer.send(name, _TIME + i, 1.0)

        threads = [threading.Thread(target=work, args=(f"T{k}",)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert producer.delivered == 2000


def test_a_batch_too_large_for_one_record_is_split(kafka_bootstrap, topic):
    count = 10_000
    columns = {name: [1.0 / 3] * count for name in ("price", "size", "bid", "ask", "volume")}
    columns |= {"symbol": ["A" * 32] * count, "event_time_ns": [_TIME] * count}
    with TickProducer(kafka_bootstrap, topic=topic, format="json", batch_ticks=count) as producer:
        producer.send_many(columns)
    assert producer.delivered == count


def test_nothing_of_a_bad_table_is_sent(kafka_bootstrap, topic):
    with TickProducer(kafka_bootstrap, topic=topic) as producer:
        with pytest.raises(InvalidInputError, match=r"price is -1.*row 1"):
            producer.send_many(
                {"symbol": ["A", "B"], "event_time_ns": [_TIME] * 2, "price": [1.0, -1.0]}
            )
        with pytest.raises(InvalidInputError, match="row 1"):
            producer.send_many([("A", _TIME, 1.0), ("B",)])
    assert producer.delivered == 1
    with pytest.raises(InvalidInputError, match="closed"):
        producer.send("A", _TIME, 1.0)


def test_refused_records_raise_with_counts(kafka_bootstrap, unique):
    # The broker takes no record of this topic: all are larger than its limit.
    new = NewTopic(unique, num_partitions=1, config={"max.message.bytes": "100"})
    _create(kafka_bootstrap, new)
    producer = TickProducer(kafka_bootstrap, topic=unique)
    for i in range(20):
        producer.send(f"S{i}", _TIME, 1.0 / 3)
    with pytest.raises(DeliveryError, match="20 of 20") as raised:
        producer.close()
    assert (raised.value.failed, raised.value.delivered) == (20, 0)
    producer.close()


@pytest.mark.parametrize(
    "arguments",
    [
        {"format": "xml"},
        {"batch_ticks": 0},
        {"batch_ticks": 10**6},
        {"linger_ms": -1},
        {"delivery_timeout_s": 0},
        {"bootstrap_servers": "nowhere"},
    ],
)
def test_bad_arguments_are_refused_by_name(arguments):
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        TickProducer(**arguments)


def test_a_missing_topic_or_broker_is_one_sentence(kafka_bootstrap, unique, monkeypatch):
    with pytest.raises(UnavailableError, match="mystocks topics apply"):
        TickProducer(kafka_bootstrap, topic=unique)
    monkeypatch.setattr("mystocks.sdk.producer.ANSWER_TIMEOUT_S", 0.3)
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        TickProducer("127.0.0.1:1")
