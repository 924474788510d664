"""Dead letters are listed, shown, exported and sent again, each one once and in order."""

import base64
import importlib
import json
import sys

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from mystocks.cli import main as command_line
from mystocks.v1.market_pb2 import Tick, TickBatch
from schemas.dead_letters import build_dead_letter
from schemas.topics import dead_letter_topic, market_data_config
from streams.kafka.bounded_read import TopicReader
from streams.kafka.dead_letters import values

pytestmark = pytest.mark.kafka

# The package has a function of the same name.
requeue_module = importlib.import_module("streams.kafka.dead_letters.requeue")

TIME = 1_700_000_000_000_000_000
TIME_MS = TIME // 1_000_000
BATCH = TickBatch(
    ticks=[Tick(symbol=f"S{i}", event_time_ns=TIME + i, price=1.0 + i) for i in range(5)]
).SerializeToString()
JSON = json.dumps(
    [{"symbol": f"J{i}", "event_time_ns": TIME + i, "price": 1.0} for i in range(4)]
).encode()


@pytest.fixture
def topic(kafka_bootstrap, unique):
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    new = [
        NewTopic(name, num_partitions=2, config=market_data_config(-1))
        for name in (unique, dead_letter_topic(unique))
    ]
    for result in admin.create_topics(new).values():
        result.result(10)
    return unique


@pytest.fixture
def command(own_environment, kafka_bootstrap, monkeypatch, capsys):
    """Runs `mystocks dead-letters` in this process: exit status, output, error output."""
    monkeypatch.setenv("MYSTOCKS_KAFKA__BOOTSTRAP_SERVERS", kafka_bootstrap)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["mystocks", "dead-letters", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def refuse(kafka_bootstrap, topic):
    """Writes a dead letter as a role would."""
    producer = Producer({"bootstrap.servers": kafka_bootstrap})

    def write(value, offset, *, partition=0, reason="price is 0", group="g", rows=None, **more):
        letter = build_dead_letter(
            b"key",
            value,
            reason=reason,
            topic=topic,
            partition=partition,
            offset=offset,
            group=group,
            rows=rows,
            **more,
        )
        producer.produce(
            dead_letter_topic(topic),
            letter.value,
            letter.key,
            partition,
            headers=letter.headers,
            timestamp=TIME_MS + offset,
        )
        producer.flush()

    return write


def sent(kafka_bootstrap, topic):
    """Returns the messages of the source topic by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_bootstrap,
            "group.id": topic,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    found = []
    for partition in range(2):
        consumer.assign([TopicPartition(topic, partition, 0)])
        while (message := consumer.poll(10)).error() is None:
            found.append(message)
    consumer.close()
    return found


def test_letters_of_one_record_are_one_line_and_filters_narrow_the_list(topic, command, refuse):
    refuse(b"{", 3, reason="malformed JSON", group="one")
    refuse(b"{", 3, reason="malformed JSON", group="two")
    refuse(BATCH, 9, rows=[1, 2], partition=1)
    code, out, _ = command("list", topic, "--json")
    first, second = json.loads(out)["letters"]
    assert code == 0
    assert (first["id"], first["groups"], first["rows"]) == ("0:3", ["one", "two"], None)
    assert (second["id"], second["rows"], second["attempt"]) == ("1:9", [1, 2], 0)
    for arguments in (
        ("--reason", "JSON"),
        ("--id", "0:3"),
        ("--until", "2023-11-14T22:13:20.005Z"),
    ):
        _, out, _ = command("list", topic, "--json", *arguments)
        assert [letter["id"] for letter in json.loads(out)["letters"]] == ["0:3"]


def test_requeue_sends_each_letter_once_in_order_and_marks_the_attempt(
    topic, command, refuse, kafka_bootstrap
):
    offsets = [4, 7, 8, 20]
    for offset in offsets:
        refuse(b"value %d" % offset, offset, headers=[("content-type", b"text/odd")])
    _, out, _ = command("requeue", topic, "--dry-run")
    assert out.startswith("4 dead letters would be sent")
    assert sent(kafka_bootstrap, topic) == []
    code, out, _ = command("requeue", topic, "--json")
    assert (code, json.loads(out)["sent"]) == (0, [f"0:{offset}" for offset in offsets])
    _, out, _ = command("requeue", topic, "--json")
    assert json.loads(out)["sent"] == []
    messages = sent(kafka_bootstrap, topic)
    assert [message.value() for message in messages] == [b"value %d" % o for o in offsets]
    assert {message.key() for message in messages} == {b"key"}
    for message in messages:
        assert dict(message.headers()) == {
            "content-type": b"text/odd", "attempt": b"1", "for_groups": b"g"
        }  # fmt: skip
    _, out, _ = command("list", topic, "--all", "--json")
    assert all(letter["requeued"] for letter in json.loads(out)["letters"])


def test_a_second_refusal_of_the_same_tick_counts_its_attempts(
    topic, command, refuse, kafka_bootstrap
):
    refuse(b"x", 1, headers=[("attempt", b"1")])
    command("requeue", topic)
    assert dict(sent(kafka_bootstrap, topic)[0].headers())["attempt"] == b"2"


def test_of_a_record_refused_in_part_only_those_ticks_are_sent(
    topic, command, refuse, kafka_bootstrap
):
    table = pa.table({"symbol": ["A", "B", "C"], "price": [1.0, 2.0, 3.0]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    refuse(BATCH, 1, rows=[1, 3])
    refuse(JSON, 2, rows=[0])
    refuse(bytes(sink.getvalue()), 3, rows=[2])
    refuse(b"\n\x07truncated", 4, rows=[0])
    code, out, _ = command("requeue", topic, "--json")
    report = json.loads(out)
    assert code == 1
    assert list(report["skipped"]) == ["0:4"]
    assert report["sent"] == ["0:1", "0:2", "0:3"]
    batch, text, arrow = (message.value() for message in sent(kafka_bootstrap, topic))
    assert [tick.symbol for tick in TickBatch.FromString(batch).ticks] == ["S1", "S3"]
    assert [tick["symbol"] for tick in json.loads(text)] == ["J0"]
    assert pa.ipc.open_stream(arrow).read_all()["symbol"].to_pylist() == ["C"]


def test_each_group_gets_again_what_it_refused_itself_also_later(
    topic, command, refuse, kafka_bootstrap
):
    refuse(BATCH, 1, rows=[1], group="one")
    refuse(BATCH, 1, rows=[1, 3], group="two")
    refuse(b"{", 2, group="one")
    command("requeue", topic)
    refuse(b"{", 2, group="late")
    _, out, _ = command("list", topic, "--json")
    (letter,) = json.loads(out)["letters"]
    assert (letter["id"], letter["waiting"]) == ("0:2", ["late"])
    assert letter["groups"] == ["late", "one"]
    for _ in range(2):
        command("requeue", topic)
    found = [
        (dict(message.headers())["for_groups"], message.value())
        for message in sent(kafka_bootstrap, topic)
    ]
    assert [groups for groups, _ in found] == [b"one", b"two", b"one", b"late"]
    ticks = [[tick.symbol for tick in TickBatch.FromString(value).ticks] for _, value in found[:2]]
    assert ticks == [["S1"], ["S1", "S3"]]
    assert [value for _, value in found[2:]] == [b"{", b"{"]


def test_letters_of_several_groups_go_out_in_the_order_of_their_records(
    topic, command, refuse, kafka_bootstrap
):
    for group, offsets in (("one", [5, 9]), ("two", [3, 5, 7])):
        for offset in offsets:
            refuse(b"%d" % offset, offset, group=group)
    command("requeue", topic)
    assert [m.value() for m in sent(kafka_bootstrap, topic)] == [b"3", b"5", b"7", b"9"]


def test_requeue_reads_no_further_than_it_must_and_never_inside_a_transaction(
    topic, command, refuse, kafka_bootstrap, monkeypatch
):
    for offset in range(9):
        refuse(b"%d" % offset, offset)
    monkeypatch.setattr(values, "_LETTERS", 2)
    happened = []
    read, make = TopicReader.read, requeue_module.producer

    def reading(self, partition, start=None, end=None):
        if start is not None:
            happened.append(f"read {start}-{end}")
        return read(self, partition, start, end)

    class Noting:
        def __init__(self, client):
            self._client = client

        def __getattr__(self, name):
            if name in ("begin_transaction", "commit_transaction"):
                happened.append(name.partition("_")[0])
            return getattr(self._client, name)

    monkeypatch.setattr(TopicReader, "read", reading)
    monkeypatch.setattr(requeue_module, "producer", lambda *a, **k: Noting(make(*a, **k)))
    chosen = [option for n in (1, 2, 4) for option in ("--id", f"0:{n}")]
    _, out, _ = command("requeue", topic, "--json", *chosen)
    assert json.loads(out)["sent"] == ["0:1", "0:2", "0:4"]
    assert happened == ["read 1-3", "begin", "commit", "read 4-5", "begin", "commit"]
    assert [m.value() for m in sent(kafka_bootstrap, topic)] == [b"1", b"2", b"4"]


def test_a_value_that_was_cut_is_taken_from_the_source_while_it_is_there(
    topic, command, refuse, kafka_bootstrap
):
    whole = b"w" * 300_000
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    producer.produce(topic, whole, partition=0)
    producer.flush()
    refuse(whole, 0, max_bytes=100_000)
    refuse(whole, 17, max_bytes=100_000)
    code, out, _ = command("requeue", topic, "--json")
    report = json.loads(out)
    assert (code, report["sent"]) == (1, ["0:0"])
    assert "was deleted" in report["skipped"]["0:17"]
    assert [message.value() for message in sent(kafka_bootstrap, topic)] == [whole, whole]


def test_show_and_export_give_the_original_bytes(topic, command, refuse, tmp_path):
    refuse(b"\x00\xff{", 5)
    _, out, _ = command("show", "0:5", topic, "--json")
    assert base64.b64decode(json.loads(out)["value_base64"]) == b"\x00\xff{"
    _, out, _ = command("show", "0:5", topic)
    assert "price is 0" in out
    assert "\\x00\\xff{" in out
    command("export", tmp_path / "letters.jsonl", topic)
    lines = (tmp_path / "letters.jsonl").read_text().splitlines()
    assert [base64.b64decode(json.loads(line)["value_base64"]) for line in lines] == [b"\x00\xff{"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--id", "7"), "PARTITION:OFFSET"),
        (("list", "--since", "yesterday"), "--since"),
        (("show", "0:99"), "0:99"),
    ],
)
def test_bad_arguments_are_refused_by_name(topic, command, arguments, words):
    code, _, errors = command(arguments[0], *arguments[1:], topic)
    assert code == 2
    assert words in errors
