"""How long rows stay away: restoring 50,000 symbols, and a process that dies.

`restore_s_50000_symbols`: from the start of the loop (joining the group included) until every
partition is live, after a clean stop, on one process. `failover_s`: kill -9 of one of two
processes, default settings, until a tick that was sent after the kill has its row on every
partition; `failover_restart_s`: the same where the process is started again at once, as a
supervisor does (static membership).
"""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks import workload
from mystocks.roles.features import build
from schemas.settings import Settings, load_settings
from schemas.topics import features_topic, topic_specs
from streams.kafka.admin import ensure_topics
from streams.metrics import LoopMetrics

PARTITIONS = 4
SYMBOLS = 50_000
_PATIENCE_S = 120.0
_TICK_EVERY_S = 0.01


def settings_for(stack: dict[str, str], name: str, **features: object) -> Settings:
    """Returns settings of a feature set of its own, its topics created."""
    settings = load_settings(
        kafka={"bootstrap_servers": stack["kafka"], "partitions": PARTITIONS},
        redis={"url": stack["redis"]},
        data_dir=stack["data_dir"],
        features={"name": name, "source_topic": f"bench.{name}", **features},
    )
    ensure_topics(settings, topic_specs(settings, frozenset({"features"})))
    return settings


def measure_recovery(
    stack: dict[str, str], rounds: int, report: Callable[[str, list[float]], None]
) -> None:
    """Measures everything.

    Args:
        stack: Servers and data directory.
        rounds: How often.
        report: Takes a key and its numbers.
    """
    report(f"restore_s_{SYMBOLS}_symbols", [restore(stack) for _ in range(rounds)])
    for key, again in (("failover_s", False), ("failover_restart_s", True)):
        report(key, [failover(stack, again) for _ in range(rounds)])


def restore(stack: dict[str, str]) -> float:
    """Returns how long the restore of `SYMBOLS` symbols takes, in seconds."""
    settings = settings_for(stack, f"restore{uuid.uuid4().hex[:6]}")
    names = [f"R{i:05d}" for i in range(SYMBOLS)]
    count = 2 * SYMBOLS
    ticks = workload.Ticks(
        names,
        np.tile(np.arange(SYMBOLS), 2),
        time.time_ns() + np.arange(count),
        np.full(count, 100.0),
        np.ones(count),
    )
    producer = Producer(settings.kafka.as_librdkafka())
    for partition, value in workload.batch_messages(ticks, PARTITIONS, 500):
        producer.produce(settings.features.source_topic, value, partition=partition)
    producer.flush(30)
    _run_until(settings, count)
    return _run_until(settings, 0)


def _run_until(settings: Settings, rows: int) -> float:
    """Runs the loop until it has committed so many rows; returns seconds until it was ready."""
    metrics = LoopMetrics()
    loop = build(settings, f"bench.{settings.features.name}", metrics)
    took: list[float] = []

    def ready() -> None:
        took.append(time.perf_counter() - began)
        threading.Thread(target=watch, daemon=True).start()

    def watch() -> None:
        while (metrics.registry.get_sample_value("mystocks_rows_out_total") or 0) < rows:
            time.sleep(0.01)
        loop.stop()

    began = time.perf_counter()
    loop.run(on_ready=ready)
    return took[0]


def failover(stack: dict[str, str], again: bool) -> float:
    """Returns how long rows of some partition stay away after a kill, in seconds.

    Args:
        stack: Servers and data directory.
        again: Whether the process is started again at once.
    """
    settings = settings_for(stack, f"failover{uuid.uuid4().hex[:6]}")
    with _ticking(settings), _roles(settings) as roles:
        _await_shared(settings, len(roles))
        seen = _Rows(settings)
        seen.wait_for_all(time.time_ns())
        killed = time.time_ns()
        roles[0].kill()
        if again:
            roles[0].wait()
            roles[0] = _start(settings, 0)
        took = seen.wait_for_all(killed)
        seen.close()
    return took


class _Rows:
    """Which event times have come out, by partition."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = Consumer(
            {
                **settings.kafka.as_librdkafka(),
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
            }
        )
        topic = features_topic(settings.features.name)
        self._consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])

    def wait_for_all(self, after_ns: int) -> float:
        """Waits for a later tick's row on every partition; returns seconds since `after_ns`."""
        late: set[int] = set()
        deadline = time.monotonic() + _PATIENCE_S
        while len(late) < PARTITIONS:
            for message in self._consumer.consume(100, 0.01):
                # A block's timestamp is its newest event time, in whole milliseconds.
                if message.error() is None and message.timestamp()[1] * 1_000_000 > after_ns:
                    late.add(message.partition())
            if time.monotonic() > deadline:
                raise RuntimeError(f"rows on partitions {sorted(late)} only")
        return (time.time_ns() - after_ns) / 1e9

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def _ticking(settings: Settings) -> Iterator[None]:
    """Sends a tick to every partition, again and again."""
    stopping = threading.Event()

    def produce() -> None:
        producer = Producer({**settings.kafka.as_librdkafka(), "linger.ms": 0})
        while not stopping.wait(_TICK_EVERY_S):
            for partition in range(PARTITIONS):
                tick = {"symbol": f"F{partition}", "event_time_ns": time.time_ns(), "price": 1}
                value = json.dumps(tick)
                producer.produce(settings.features.source_topic, value, partition=partition)
            producer.poll(0)
        producer.flush(10)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@contextmanager
def _roles(settings: Settings) -> Iterator[list[subprocess.Popen]]:
    """Two processes that share the partitions."""
    roles = [_start(settings, slot) for slot in range(2)]
    try:
        yield roles
    finally:
        for role in roles:
            role.terminate()
        for role in roles:
            role.wait(30)


def _start(settings: Settings, slot: int) -> subprocess.Popen:
    role = subprocess.Popen(
        [sys.executable, "-m", "mystocks.roles", "features"],
        env=os.environ | settings.as_environment() | {"MYSTOCKS_FEATURES__SLOT": str(slot)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert role.stdout is not None
    threading.Thread(target=role.stdout.read, daemon=True).start()
    return role


def _await_shared(settings: Settings, members: int) -> None:
    """Waits until every process has partitions: what one without does is missed by nobody."""
    admin = AdminClient(settings.kafka.as_librdkafka())
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        group = admin.describe_consumer_groups([settings.features_group])
        shares = [
            len(member.assignment.topic_partitions)
            for member in group[settings.features_group].result(_PATIENCE_S).members
        ]
        if len(shares) == members and min(shares) > 0 and sum(shares) == PARTITIONS:
            return
        time.sleep(0.05)
    raise RuntimeError(f"expected {members} processes with partitions, were {shares}")
