"""Positions: what is fetched after a restore is what the restore ended at, on the real broker."""

import random
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.settings import load_settings
from streams.kafka.assignment import Assignment
from streams.kafka.clients import group_consumer
from tests.streams.kafka.fakes import SOURCE, Broker, Rig, fill
from tests.streams.kafka.test_loop_faults import EXPECTED

PARTITIONS, MESSAGES, FIRST_OFFSET, REJOINS = 4, 400, 150, 25


class RandomRestorer:
    """Restores a partition to any offset."""

    def __init__(self) -> None:
        self._random = random.Random(5)
        self.targets: dict[int, int] = {}

    def restore(self, run, committed):
        self.targets[run.partition] = self._random.randrange(FIRST_OFFSET, MESSAGES // 2 + 100)
        run.start_at(self.targets[run.partition], 0, "")
        yield

    def check_partitions(self, given_out: int) -> None:
        assert given_out <= PARTITIONS

    def close(self) -> None:
        pass


@pytest.mark.kafka
def test_every_restart_reads_on_where_the_restore_ended(kafka_bootstrap, unique):
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([NewTopic(unique, PARTITIONS, 1)])[unique].result()
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    for i in range(MESSAGES * PARTITIONS):
        producer.produce(unique, b"x", partition=i % PARTITIONS)
    producer.flush()
    trimmed = [TopicPartition(unique, p, FIRST_OFFSET) for p in range(PARTITIONS)]
    for result in admin.delete_records(trimmed).values():
        result.result()
    settings = load_settings(kafka={"bootstrap_servers": kafka_bootstrap})
    for rejoin in range(REJOINS):
        consumer = group_consumer(settings, f"{unique}.{rejoin}", "one")
        restorer = RandomRestorer()
        assignment = Assignment(
            unique,
            "",
            consumer=consumer,
            restorer=restorer,
            new_task=lambda _number: SimpleNamespace(touch_all=lambda: None),
            metrics=SimpleNamespace(restoring=lambda _seconds: None),
        )
        assignment.subscribe(lambda _lost: None)
        read: dict[int, list[int]] = {p: [] for p in range(PARTITIONS)}
        deadline = time.monotonic() + 20
        while not all(o and o[-1] == MESSAGES - 1 for o in read.values()):
            assert time.monotonic() < deadline, {p: len(o) for p, o in read.items()}
            assignment.advance(may_restore=True)
            for message in consumer.consume(1000, 0.001):
                assert message.error() is None
                read[message.partition()].append(message.offset())
        consumer.close()
        expected = {p: list(range(first, MESSAGES)) for p, first in restorer.targets.items()}
        assert read == expected


def test_a_position_that_is_lost_in_silence_is_noticed_and_read_again():
    broker = Broker()
    fill(broker)
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.steps(8)
    rig.consumer.lose_position(0, 25)
    rig.settle()
    assert [broker.rows(p) for p in (0, 1)] == EXPECTED


def test_offsets_that_hold_no_record_do_not_stop_a_partition():
    broker = Broker()
    fill(broker)
    holes = [*range(12, 17), 20, 21]
    broker.holes = {(SOURCE, 0, offset) for offset in holes}
    rig = Rig(broker)
    rig.assign(0, 1)
    rig.settle()
    assert len(broker.rows(0)) == len(EXPECTED[0]) - len(holes)
    assert broker.rows(1) == EXPECTED[1]
