import json
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from mystocks.cli import main as command_line
from mystocks.cli.tick_sending import Pace, send_file
from schemas.errors import InvalidInputError
from schemas.topics import market_data_config

_TIME = 1_362_171_600_000_000_000
_HEADER = "symbol,event_time_ns,price,size"


@pytest.fixture
def topic(kafka_bootstrap, unique):
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    new = NewTopic(unique, num_partitions=2, config=market_data_config(-1))
    admin.create_topics([new])[unique].result(10)
    return unique


@pytest.fixture
def command(own_environment, kafka_bootstrap, monkeypatch, capsys):
    """Runs `mystocks` in this process: exit status, standard output, standard error."""
    monkeypatch.setenv("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", kafka_bootstrap)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mystocks", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


def _count(kafka_bootstrap, topic):
    consumer = Consumer(
        {"bootstrap.servers": kafka_bootstrap, "group.id": topic, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(2)])
    values, ended = [], 0
    while ended < 2:
        message = consumer.poll(10)
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF
            ended += 1
        else:
            values.append(message.value())
    consumer.close()
    return values


def _csv(path, count=100, extra=""):
    rows = [f"S{i % 5},{_TIME + i},{1 + i / 8},{i}" for i in range(count)]
    path.write_text("\n".join([_HEADER, *rows]) + "\n" + extra)
    return path


@pytest.mark.kafka
@pytest.mark.parametrize("encoding", ["batch", "json", "arrow"])
def test_a_csv_file_is_sent_and_summed_up(command, topic, tmp_path, encoding):
    file = _csv(tmp_path / "ticks.csv")
    status, out, err = command(
        "ticks", "produce", file, "--topic", topic, "--format", encoding, "--json"
    )
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert (summary["ticks"], summary["symbols"], summary["topic"]) == (100, 5, topic)


@pytest.mark.kafka
def test_a_parquet_file_with_optional_columns_is_sent(command, topic, tmp_path, kafka_bootstrap):
    file = tmp_path / "ticks.parquet"
    columns = {
        "symbol": ["A", "B"],
        "event_time_ns": pa.array([_TIME, _TIME + 1], pa.timestamp("ns", "UTC")),
        "price": [1.0, 2.0],
        "bid": [0.9, None],
        "sequence": [7, 8],
    }
    pq.write_table(pa.table(columns), file)
    status, out, _ = command(
        "ticks", "produce", file, "--topic", topic, "--format", "json", "--batch-ticks", 1
    )
    assert status == 0
    assert "2 ticks of 2 symbols from ticks.parquet" in out
    sent = sorted((json.loads(v) for v in _count(kafka_bootstrap, topic)), key=lambda t: t["price"])
    assert sent[0] | {"bid": 0.9, "sequence": 7} == sent[0]
    assert "bid" not in sent[1]


@pytest.mark.kafka
def test_standard_input_is_read_as_csv(cli_environment, topic, kafka_bootstrap, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mystocks.cli.main", "ticks", "produce", "-", "--topic", topic],
        check=True,
        input=_csv(tmp_path / "ticks.csv").read_text(),
        env=cli_environment | {"MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS": kafka_bootstrap},
        capture_output=True,
        text=True,
    )
    assert "100 ticks of 5 symbols from standard input" in done.stdout


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("AAPL,1362171600,1.0,1", "looks like seconds (line 102)"),
        (f"AAPL,{_TIME},0,1", "price is 0"),
        (f"AAPL,{_TIME},abc,1", "price is 'abc', expected a number (line 102)"),
        (f"AAPL,{_TIME},nan,1", "price is NaN"),
        (f"AAPL,{_TIME}.5,1.0,1", "event_time_ns is"),
        (f"AAPL,{_TIME},1.0,-1", "size is -1"),
        (f",{_TIME},1.0,1", "symbol is missing (line 102)"),
        (f"A B,{_TIME},1.0,1", "symbol 'A B'"),
        (f"AAPL,{_TIME},1.0", "line 102"),
    ],
)
def test_a_bad_row_is_refused_by_field_and_line(command, topic, tmp_path, line, named):
    file = _csv(tmp_path / "ticks.csv", extra=line + "\n")
    status, out, err = command("ticks", "produce", file, "--topic", topic)
    assert (status, out) == (2, "")
    assert named in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("symbol,event_time_ns,size", "column price"),
        ("symbol,event_time_ns,price,px", "'px'"),
        ("symbol,event_time_ns,price,price", "price twice"),
        ("", "CSV"),
    ],
)
def test_bad_columns_are_refused_by_name(own_environment, monkeypatch, capsys, header, named):
    file = own_environment / "ticks.csv"
    file.write_text(header + "\n")
    monkeypatch.setattr(sys, "argv", ["mystocks", "ticks", "produce", str(file)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["missing.csv"], "missing.csv"),
        (["ticks.txt"], "FILE"),
        (["x.csv", "--rate", "0"], "--rate"),
        (["x.csv", "--speed", "nan"], "--speed"),
        (["x.csv", "--rate", "1", "--speed", "1"], "--rate or --speed"),
        (["x.csv", "--format", "xml"], "--format"),
        (["x.csv", "--batch-ticks", "0"], "--batch-ticks"),
    ],
)
def test_bad_arguments_are_refused_by_name(own_environment, monkeypatch, capsys, arguments, named):
    monkeypatch.setattr(sys, "argv", ["mystocks", "ticks", "produce", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_a_file_that_is_no_parquet_is_refused(own_environment, monkeypatch, capsys):
    file = own_environment / "ticks.parquet"
    file.write_bytes(b"hello")
    monkeypatch.setattr(sys, "argv", ["mystocks", "ticks", "produce", str(file)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "Parquet" in capsys.readouterr().err


class _FakeProducer:
    """Remembers when how many ticks were sent."""

    topic = "t"

    def __init__(self):
        self.sent = []

    def send_many(self, table):
        self.sent.append((time.monotonic(), table.num_rows))
        return table.num_rows

    def flush(self):
        pass


@pytest.mark.parametrize(("pace", "seconds"), [(Pace(rate=200), 0.5), (Pace(speed=2000), 0.5)])
def test_pacing_by_rate_and_by_event_time(pace, seconds):
    from mystocks.cli.tick_file import TickFile

    # One tick each 10 seconds of event time: 1000 s in all, half a second at 2000 times the speed.
    times = [_TIME + i * 10_000_000_000 for i in range(101)]
    table = pa.table({"symbol": ["A"] * 101, "event_time_ns": times, "price": [1.0] * 101})
    producer = _FakeProducer()
    began = time.monotonic()
    summary = send_file(TickFile(iter([table]), str, 101), producer, pace, show=False)
    assert summary["ticks"] == 101
    assert seconds <= producer.sent[-1][0] - began + 0.02 < seconds + 2
    assert len(producer.sent) > 5


def test_a_pace_must_be_positive():
    with pytest.raises(InvalidInputError, match="--rate"):
        Pace.parse(-1, None)
