"""A broker that is killed and starts again on its data."""

import contextlib
import os
import signal
import socket
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams.local.artifacts import ensure_jars
from streams.local.class_data import ensure_class_data
from streams.local.java import find_java
from streams.local.kafka import KafkaBroker
from streams.local.ports import HOST

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
TOPIC = "restarts"
KILLS = 2
WRITERS = 6
PATIENCE_S = 60


@pytest.fixture
def broker(tmp_path):
    java, jars = find_java(), ensure_jars()
    flags = ensure_class_data(java, jars)
    server = KafkaBroker(
        tmp_path / "kafka",
        tmp_path / "kafka.log",
        java=java,
        jars=jars,
        jvm_flags=flags,
        quick_start=True,
    )
    server.launch()
    server.wait_ready()
    yield server
    server.stop()


def _kill(server: KafkaBroker) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.stop()


def _own_port(directory) -> int:
    text = (directory / "kafka" / "server.properties").read_text()
    return int(text.split("BROKER://127.0.0.1:")[1].split(",")[0])


def test_a_broker_at_rest_writes_nothing(broker, tmp_path):
    """The controller waits for each of its writes to reach the disk, and hears nobody meanwhile."""
    (log,) = (tmp_path / "kafka" / "log" / "__cluster_metadata-0").glob("*.log")
    sizes = [log.stat().st_size]
    for _ in range(8):
        time.sleep(1.5)  # Kafka's own interval is half a second
        sizes.append(log.stat().st_size)
        if sizes[-2] == sizes[-1]:
            break
    assert sizes[-2] == sizes[-1], sizes


def test_the_address_of_the_last_life_takes_connections_until_there_are_leaders(broker, tmp_path):
    past = _own_port(tmp_path)
    _kill(broker)
    broker.launch(broker.port)
    socket.create_connection((HOST, past), timeout=5).close()
    broker.wait_ready()
    assert _own_port(tmp_path) != past
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, past), timeout=5)


class Transactions(threading.Thread):
    """Commits records as fast as the broker can, until the broker dies."""

    def __init__(self, address: str, name: str) -> None:
        super().__init__(daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "transactional.id": name,
                "transaction.timeout.ms": 2000,
                "log_level": 0,
            }
        )
        self.commits = 0

    def run(self) -> None:
        with contextlib.suppress(KafkaException):
            self._producer.init_transactions(30)
            while True:
                self._producer.begin_transaction()
                self._producer.produce(TOPIC, b"x", partition=0)
                self._producer.commit_transaction(1)
                self.commits += 1


def test_no_transaction_is_left_without_its_end(broker):
    """Nobody comes back to end them: the broker alone has to."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    for done in admin.create_topics([NewTopic(TOPIC, 1, 1)]).values():
        done.result(30)
    for kill in range(KILLS):
        writers = [Transactions(broker.address, f"{kill}.{number}") for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        began = time.monotonic()
        while any(writer.commits < 20 for writer in writers):
            assert time.monotonic() - began < PATIENCE_S
            time.sleep(0.01)
        _kill(broker)
        broker.launch(broker.port)
        broker.wait_ready()
        for writer in writers:
            writer.join(PATIENCE_S)
    reader = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    place = TopicPartition(TOPIC, 0)
    end = reader.get_watermark_offsets(place, timeout=10)[1]
    place.offset = 0
    reader.assign([place])
    position, began = 0, time.monotonic()
    while position < end:
        message = reader.poll(1)
        if message is not None:
            position = max(position, message.offset() + (0 if message.error() else 1))
        assert time.monotonic() - began < PATIENCE_S, f"readers stand at {position} of {end}"
    reader.close()
