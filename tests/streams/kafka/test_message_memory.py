"""Fields read in bulk are those that the messages tell one by one."""

import numpy as np
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from schemas.settings import load_settings
from schemas.ticks import SymbolTable, TickDecoder
from schemas.topics import TopicSpec, market_data_config
from streams.kafka import batch as batches
from streams.kafka import message_memory
from streams.kafka.admin import ensure_topics
from streams.kafka.batch import PartitionBatch
from streams.kafka.clients import reader
from tests.schemas.tick_samples import good_batch, good_json

HEADERS = st.none() | st.just([]) | st.lists(st.tuples(st.just("content-type"), st.binary()))
MESSAGES = st.lists(
    st.builds(
        lambda value, time, headers: Message(
            topic="t", partition=0, value=value, timestamp=(1, time), headers=headers
        ),
        st.none() | st.binary(max_size=300),
        st.integers(-1, 2**62),
        HEADERS,
    ),
    max_size=30,
)


@pytest.fixture
def one_by_one(monkeypatch):
    """Makes a batch ask its messages."""

    def make(messages: list[Message]) -> PartitionBatch:
        with monkeypatch.context() as context:
            context.setattr(message_memory, "is_as_expected", lambda: False)
            context.setattr(batches, "_MANY", 0)
            batch = PartitionBatch(0, messages)
            assert batch._fields is None
            return batch

    return make


def equal(bulk: PartitionBatch, messages: list[Message]) -> None:
    assert list(bulk.values) == [message.value() for message in messages]
    assert bulk.timestamps_ms.tolist() == [message.timestamp()[1] for message in messages]
    assert bulk.size == sum(map(len, messages))
    # Last, since asking for headers makes the library keep them elsewhere.
    assert bulk._any_headers == any(message.headers() for message in messages)


def test_this_build_of_the_client_is_known():
    assert message_memory.is_as_expected()


@given(MESSAGES)
def test_any_messages_are_read_as_they_are(messages):
    fields = message_memory.read_fields(messages)
    assert fields is not None
    assert len(fields) == len(messages)
    assert list(fields) == [message.value() for message in messages]
    assert fields[1:] == [message.value() for message in messages[1:]]
    assert fields.timestamps_ms.tolist() == [message.timestamp()[1] for message in messages]
    joined = b"".join(message.value() or b"" for message in messages)
    assert fields.buffer.tobytes().rstrip(b"\0") == joined.rstrip(b"\0")
    assert np.diff(fields.starts).tolist() == [len(message) for message in messages]


def test_a_value_that_is_not_bytes_is_left_to_the_messages(monkeypatch):
    monkeypatch.setattr(batches, "_MANY", 2)
    messages = [Message(value=b"bytes"), Message(value="text")]
    assert message_memory.read_fields(messages) is None
    assert list(PartitionBatch(0, messages).values) == [b"bytes", "text"]


def test_what_is_no_message_is_not_looked_into():
    assert message_memory.read_fields([Message(value=b"bytes"), object()]) is None


def test_a_process_that_may_not_read_in_bulk_does_not():
    messages = [Message(value=b"bytes")]
    message_memory.prepare(allowed=False)
    try:
        assert message_memory.read_fields(messages) is None
    finally:
        message_memory.prepare(allowed=True)
    assert list(message_memory.read_fields(messages) or ()) == [b"bytes"]


@pytest.mark.parametrize(
    "changed", ["_VALUE", "_HEADERS", "_TIMESTAMP", "_BYTES_LENGTH", "_BYTES_DATA"]
)
def test_another_layout_is_noticed(monkeypatch, changed):
    monkeypatch.setattr(message_memory, changed, getattr(message_memory, changed) - 8)
    assert not message_memory.is_as_expected.__wrapped__()


def test_ticks_are_the_same_whichever_way_messages_are_read(one_by_one):
    tick = {"symbol": "ODD", "event_time_ns": 1_600_000_000_000_000_000, "price": 2.5}
    kinds = [
        good_json(),
        good_json("OTHER", size=None, sequence=7),
        good_batch(tick, tick),
        b'{"symbol": "\\u0041", "event_time_ns": "1600000000000000000", "price": 1e0}',
        good_json(price=-1),
        b"not a tick",
        b"",
        None,
    ]
    values = kinds * (batches._MANY // len(kinds) + 1)
    messages = [
        Message(topic="t", partition=0, offset=k, value=value, timestamp=(1, 1_700_000_000_000))
        for k, value in enumerate(values)
    ]
    assert len(messages) >= batches._MANY
    decoded = []
    for batch in (PartitionBatch(0, messages), one_by_one(messages)):
        ticks, refused = TickDecoder().decode(
            batch.values, batch.content_types, batch.timestamps_ms, SymbolTable(1000)
        )
        columns = {
            name: getattr(ticks, name).tolist() for name in ("code", "event_time", "message")
        }
        decoded.append((columns, ticks.price.tobytes(), refused))
    assert decoded[0] == decoded[1]
    assert all(decoded[0])


@pytest.mark.kafka
@pytest.mark.parametrize("headers", [None, [("content-type", b"application/json")]])
def test_polled_messages_are_read_as_they_are(kafka_bootstrap, unique, headers):
    settings = load_settings(kafka={"bootstrap_servers": kafka_bootstrap, "partitions": 1})
    topic = f"market.bars.{unique}"
    ensure_topics(settings, [TopicSpec(topic, "", "", "bars", None, market_data_config(-1))])
    producer = Producer(settings.kafka.as_librdkafka())
    for k in range(200):
        producer.produce(topic, b"v" * k or None, headers=headers, timestamp=1_700_000_000_000 + k)
    producer.flush()
    consumer = reader(settings, "memory")
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Message] = []
    while len(messages) < 200:
        messages += [m for m in consumer.consume(200, 1.0) if m.error() is None]
    consumer.close()
    equal(PartitionBatch(0, messages), messages)
