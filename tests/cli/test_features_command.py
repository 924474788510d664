import json
import sys

import pyarrow as pa
import pytest
import redis
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from mystocks.cli import main as command_line
from mystocks.cli.feature_display import number_text, time_text
from schemas.topics import market_data_config

_TIME = 1_362_171_600_000_000_000


@pytest.fixture
def command(own_environment, monkeypatch, capsys):
    def run(*arguments, **variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mystocks", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def with_servers(command, kafka_bootstrap, redis_url, unique):
    def run(*arguments):
        return command(
            *arguments,
            MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS=kafka_bootstrap,
            MYSTOCKS_REDIS__URL=redis_url,
            MYSTOCKS_FEATURES__NAME=unique,
            MYSTOCKS_FEATURES__SOURCE_TOPIC=f"{unique}.ticks",
        )

    return run


@pytest.fixture
def rows(kafka_bootstrap, redis_url, unique):
    """Ten rows of two symbols in the topic, and the last ones in Redis."""
    topic = f"features.{unique}"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    new = NewTopic(topic, num_partitions=1, config=market_data_config(-1))
    admin.create_topics([new])[topic].result(10)
    symbols = ["AAPL", "IBM"] * 5
    times = [_TIME + i * 60_000_000_000 for i in range(10)]
    batch = pa.RecordBatch.from_pydict(
        {
            "symbol": pa.array(symbols).dictionary_encode(),
            "event_time": pa.array(times, pa.timestamp("ns", "UTC")),
            "price": [100.0 + i for i in range(10)],
            "sma_3": [None, None, *(i / 4 for i in range(8))],
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(
        topic, sink.getvalue().to_pybytes(), partition=0, headers=[("first_row", b"0")]
    )
    assert producer.flush(10) == 0
    table = {
        symbol: json.dumps(
            {
                "symbol": symbol,
                "event_time_ns": times[i],
                "price": 100.0 + i,
                "partition": 0,
                "row": i,
                "sma_3": None if symbol == "IBM" else 1.5,
            }
        )
        for i, symbol in ((8, "AAPL"), (9, "IBM"))
    }
    redis.Redis.from_url(redis_url).hset(f"features:{unique}", mapping=table)


@pytest.mark.kafka
def test_get_shows_the_latest_rows(with_servers, rows):
    status, out, _ = with_servers("features", "get", "AAPL", "IBM")
    assert status == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["price"] == ["108", "109"]
    assert lines["sma_3"] == ["1.5", "-"]
    assert lines["time"] == ["21:08:00", "21:09:00"]


@pytest.mark.kafka
def test_get_of_a_symbol_without_row_says_so_by_exit_status(with_servers, rows):
    status, out, err = with_servers("features", "get", "--json", "AAPL", "NONE")
    assert status == 1
    assert json.loads(out)["AAPL"]["row"] == 8
    assert json.loads(out)["NONE"] is None
    assert "NONE" in err


@pytest.mark.kafka
def test_tail_prints_rows_from_where_it_is_told_to(with_servers, rows):
    status, out, _ = with_servers(
        "features", "tail", "--json", "--from", "earliest", "--symbol", "IBM", "--limit", 3
    )
    assert status == 0
    assert [json.loads(line)["row"] for line in out.splitlines()] == [1, 3, 5]
    status, out, _ = with_servers("features", "tail", "--no-follow", "--from", "2013-03-01T21:07Z")
    assert [line.split()[1:4] for line in out.splitlines()[1:]] == [
        ["21:07:00", "IBM", "107"],
        ["21:08:00", "AAPL", "108"],
        ["21:09:00", "IBM", "109"],
    ]
    assert out.startswith("time (UTC)")
    assert with_servers("features", "tail", "--timeout", 0.2)[:2] == (0, "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["features", "get", "A B"], "symbol"),
        (["features", "tail", "--symbol", ""], "symbol is empty"),
        (["features", "tail", "--from", "tomorrow"], "--from"),
        (["features", "tail", "--from", "v1:nonsense"], "resume token"),
        (["features", "tail", "--limit", "0"], "--limit"),
        (["features", "get"], "SYMBOL"),
    ],
)
def test_bad_arguments_are_refused_by_name(command, arguments, named):
    status, out, err = command(
        *arguments,
        MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        MYSTOCKS_REDIS__URL="redis://127.0.0.1:1",
    )
    assert (status, out) == (2, "")
    assert named in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["features", "get", "AAPL"], "Redis at redis://127.0.0.1:1"),
        (["features", "tail"], "127.0.0.1:1"),
        (["topics", "list"], "127.0.0.1:1"),
    ],
)
def test_servers_that_do_not_answer_are_one_line(command, arguments, named, monkeypatch):
    monkeypatch.setattr("mystocks.sdk.subscriber.ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr("mystocks.cli.topics._ANSWER_TIMEOUT_S", 0.3)
    status, out, err = command(
        *arguments,
        MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        MYSTOCKS_REDIS__URL="redis://127.0.0.1:1",
    )
    assert (status, out) == (69, "")
    assert named in err
    assert err.count("\n") == 1


@pytest.mark.kafka
def test_topics_are_listed_created_and_left_alone(with_servers, unique):
    def listed():
        topics = json.loads(with_servers("topics", "list", "--json")[1])["topics"]
        return {topic["topic"]: topic["exists"] for topic in topics}

    assert listed()[f"{unique}.ticks"] is False
    status, out, _ = with_servers("topics", "apply", "--json")
    assert status == 0
    assert f"features.{unique}" in json.loads(out)["created"]
    assert all(listed().values())
    assert "0 of" in with_servers("topics", "apply")[1]
    assert f"features.{unique}" in with_servers("topics", "list")[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1.0, "1"), (1234.5678, "1,234.57"), (12345678.9, "12,345,679")],
)
def test_numbers_are_shown_with_six_digits(value, text):
    assert number_text(value) == text


def test_times_are_shown_in_utc():
    assert time_text(_TIME) == "2013-03-01 21:00:00"
    assert time_text(_TIME + 120_000_000) == "2013-03-01 21:00:00.12"
