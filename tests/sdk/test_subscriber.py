import threading
from datetime import UTC, datetime, timedelta

import orjson
import pyarrow as pa
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from mystocks.sdk import FeatureSubscriber, Position, RowGapError
from schemas.errors import InvalidInputError
from schemas.topics import market_data_config

pytestmark = pytest.mark.kafka

_TIME = 1_362_171_600_000_000_000
_HOUR = 3_600_000_000_000
_SYMBOLS = ("AAPL", "IBM", "MSFT")


class _Topic:
    """A features topic of two partitions and a writer that numbers rows as the role does."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap, self.set = bootstrap, name
        self.topic = f"features.{name}"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.create()
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})

    def create(self) -> None:
        new = NewTopic(self.topic, num_partitions=2, config=market_data_config(-1))
        self.admin.create_topics([new])[self.topic].result(10)

    def write(self, partition, first_row, count, *, as_json=False, producer=None):
        rows = range(first_row, first_row + count)
        symbols = [_SYMBOLS[row % 3] for row in rows]
        times = [_TIME + row * _HOUR for row in rows]
        prices = [100.0 + row for row in rows]
        values = [None if row < 3 else row / 8 for row in rows]
        if as_json:
            value = orjson.dumps(
                [
                    {"symbol": s, "event_time_ns": t, "price": p, "sma_3": v}
                    for s, t, p, v in zip(symbols, times, prices, values, strict=True)
                ]
            )
        else:
            batch = pa.RecordBatch.from_pydict(
                {
                    "symbol": pa.array(symbols).dictionary_encode(),
                    "event_time": pa.array(times, pa.timestamp("ns", "UTC")),
                    "price": prices,
                    "sma_3": pa.array(values, pa.float64()),
                }
            )
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            value = sink.getvalue().to_pybytes()
        (producer or self.producer).produce(
            self.topic,
            value,
            partition=partition,
            timestamp=times[-1] // 1_000_000,
            headers=[("first_row", str(first_row).encode())],
        )
        if producer is None:
            self.producer.flush()

    def subscribe(self, start="earliest", **options):
        options = {"follow": False} | options
        return FeatureSubscriber(self.bootstrap, set=self.set, start=start, **options)

    def identities(self, start="earliest", **options):
        with self.subscribe(start, **options) as rows:
            return [(row.partition, row.row) for row in rows]


@pytest.fixture
def topic(kafka_bootstrap: str, unique: str) -> _Topic:
    return _Topic(kafka_bootstrap, unique)


def _all(*counts):
    return {(p, row) for p, count in enumerate(counts) for row in range(count)}


@pytest.mark.parametrize("as_json", [False, True])
def test_rows_carry_identity_values_and_nulls(topic, as_json):
    topic.write(0, 0, 5, as_json=as_json)
    with topic.subscribe() as subscriber:
        rows = list(subscriber)
    assert [row.row for row in rows] == [0, 1, 2, 3, 4]
    assert rows[4] == ("IBM", _TIME + 4 * _HOUR, 104.0, {"sma_3": 0.5}, 0, 4)
    assert rows[0].values == {"sma_3": None}


def test_rows_repeated_by_an_at_least_once_job_are_dropped_and_counted(topic):
    for first, count in ((0, 10), (10, 10), (5, 10), (10, 10), (20, 5)):
        topic.write(1, first, count)
    with topic.subscribe() as subscriber:
        assert [row.row for row in subscriber] == list(range(25))
        assert subscriber.duplicates == 20


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 29, 30])
def test_a_reader_resumes_at_exactly_the_next_row(topic, stop):
    for first in (0, 10, 20):
        topic.write(0, first, 10)
    topic.write(1, 0, 4)
    with topic.subscribe(limit=stop) as subscriber:
        before = [(row.partition, row.row) for row in subscriber]
        token = str(subscriber.position)
    after = topic.identities(token)
    assert len(before) == stop
    assert sorted(before + after) == sorted(_all(30, 4))


def test_a_position_that_has_only_rows_is_found_in_a_long_log_with_repetitions(topic):
    for first in range(0, 200, 5):
        topic.write(0, first, 5)
        if first % 40 == 35:  # the job was killed before it committed the last 20 rows
            for repeated in range(first - 15, first + 5, 5):
                topic.write(0, repeated, 5)
    for row in (-1, 0, 4, 5, 77, 118, 198, 199):
        assert topic.identities({0: row}) == [(0, r) for r in range(row + 1, 200)]


def test_blocks_and_rows_can_be_mixed_and_limited(topic):
    for first in (0, 10, 20):
        topic.write(0, first, 10)
    with topic.subscribe(limit=24) as subscriber:
        seen = [next(subscriber).row for _ in range(3)]
        for block in subscriber.blocks():
            assert block.batch.num_rows == len(block.rows)
            assert block.headers["first_row"].isdigit()
            seen += block.rows
            assert subscriber.position.rows == {0: seen[-1]}
    assert seen == list(range(24))
    assert topic.identities(subscriber.position) == [(0, row) for row in range(24, 30)]


def test_symbols_are_filtered_and_the_position_still_advances(topic):
    topic.write(0, 0, 10)
    with topic.subscribe(symbols=["IBM"]) as subscriber:
        assert [(row.symbol, row.row) for row in subscriber] == [("IBM", 1), ("IBM", 4), ("IBM", 7)]
        assert subscriber.position.rows == {0: 9}
    with pytest.raises(InvalidInputError, match="symbols"):
        topic.subscribe(symbols=["A B"])


def test_a_datetime_starts_at_that_event_time(topic):
    for first in range(0, 40, 4):
        topic.write(0, first, 4)
    start = datetime.fromtimestamp(_TIME / 1e9, UTC) + timedelta(hours=18)
    assert topic.identities(start) == [(0, row) for row in range(18, 40)]
    assert topic.identities(start + timedelta(days=30)) == []
    with pytest.raises(InvalidInputError, match="time zone"):
        topic.subscribe(start.replace(tzinfo=None))


def test_latest_shows_only_what_is_committed_afterwards(topic):
    topic.write(0, 0, 5)
    with topic.subscribe("latest", follow=True, timeout_s=5, limit=4) as subscriber:
        token = subscriber.position
        topic.write(0, 5, 2)
        topic.write(1, 0, 2)
        assert {(row.partition, row.row) for row in subscriber} == {(0, 5), (0, 6), (1, 0), (1, 1)}
    assert set(topic.identities(token)) == {(0, 5), (0, 6), (1, 0), (1, 1)}


def test_rows_of_aborted_and_open_transactions_are_not_seen(topic):
    producer = Producer({"bootstrap.servers": topic.bootstrap, "transactional.id": topic.set})
    producer.init_transactions(30)
    for first, commit in ((0, True), (5, False), (5, True)):
        producer.begin_transaction()
        topic.write(0, first, 5, producer=producer)
        producer.flush()
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    producer.begin_transaction()
    topic.write(0, 10, 5, producer=producer)
    producer.flush()
    assert topic.identities() == [(0, row) for row in range(10)]
    assert topic.identities({0: 7}) == [(0, 8), (0, 9)]
    producer.abort_transaction(30)


def test_a_missing_row_is_an_error_not_a_silence(topic):
    topic.write(0, 0, 5)
    topic.write(0, 7, 5)
    with topic.subscribe() as subscriber, pytest.raises(RowGapError, match="row 5"):
        list(subscriber)


def test_resuming_after_deleted_rows_is_an_error(topic):
    topic.write(0, 100, 5)
    with pytest.raises(RowGapError, match="row 51"):
        topic.subscribe({0: 50})


def test_a_position_of_another_set_topic_or_partition_is_refused(topic):
    topic.write(0, 0, 5)
    with topic.subscribe() as subscriber:
        list(subscriber)
        position = subscriber.position
    with pytest.raises(InvalidInputError, match="'other'"):
        topic.subscribe(Position("other", {0: 1}))
    with pytest.raises(InvalidInputError, match="partitions 0 to 1"):
        topic.subscribe({7: 1})
    old = Position(position.set, position.rows, topic_id="AAAAAAAAAAAAAAAAAAAAAA")
    with pytest.raises(InvalidInputError, match="deleted and created again"):
        topic.subscribe(old)


def test_iteration_ends_by_timeout_and_goes_on_later(topic):
    with topic.subscribe(follow=True, timeout_s=0.3) as subscriber:
        assert list(subscriber) == []
        topic.write(0, 0, 2)
        assert [row.row for row in subscriber] == [0, 1]


def test_close_from_another_thread_ends_the_iteration(topic):
    with topic.subscribe(follow=True) as subscriber:
        threading.Timer(0.2, subscriber.close).start()
        assert list(subscriber) == []


def test_a_record_that_is_no_feature_block_is_named(topic):
    topic.producer.produce(topic.topic, b"hello", partition=0, headers=[("first_row", b"0")])
    topic.producer.flush()
    with topic.subscribe() as subscriber, pytest.raises(InvalidInputError, match="feature block"):
        next(subscriber)


@pytest.mark.parametrize("options", [{"limit": 0}, {"timeout_s": 0}, {"start": "now"}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(InvalidInputError):
        FeatureSubscriber("127.0.0.1:1", **options)
