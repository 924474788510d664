"""Throughput and latency of the features role on a real broker, beside the limits of the client.

Throughput: a topic is filled, then one process turns it into the features topic and the Redis
table, exactly once, with snapshots on (every 2 s here, so that a run holds more than one cycle).
In the same round and over the same topic the bare rates are taken: `consume(n)` + `value()` +
join, and idempotent produce of blocks of the size that the role wrote. Latency: see `latency.py`.
`up_ready_s`: from the start of `mystocks up` to its ready line, servers included.

    python benchmarks/features.py [--quick] [--json] [--rounds N]

Broker, role, Redis and the measuring clients share the machine.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import latency, workload
from mystocks.roles.features import build
from schemas.settings import Settings, load_settings
from schemas.topics import features_topic, topic_specs
from streams.kafka.admin import ensure_topics
from streams.local.stack import LocalStack
from streams.metrics import LoopMetrics

PARTITIONS = 4
SNAPSHOT_S = 2.0
STAGES = ("poll", "decode", "kernel", "encode", "produce", "snapshot", "commit", "table")


def settings_for(stack: dict[str, str], name: str, **features: object) -> Settings:
    """Returns settings of a feature set of its own over a topic of its own."""
    return load_settings(
        kafka={"bootstrap_servers": stack["kafka"], "partitions": PARTITIONS},
        redis={"url": stack["redis"]},
        data_dir=stack["data_dir"],
        features={
            "name": name,
            "source_topic": f"bench.{name}",
            "snapshot_interval_s": SNAPSHOT_S,
            **features,
        },
    )


def run_role(settings: Settings, ticks: int) -> dict[str, float]:
    """Runs the features loop in this process until it has committed `ticks` rows."""
    metrics = LoopMetrics()
    identity = f"bench.{uuid.uuid4().hex[:8]}"
    loop = build(settings, identity, metrics)
    began: list[float] = []

    def watch() -> None:
        while value(metrics, "mystocks_rows_out_total") < ticks:
            time.sleep(0.005)
        loop.stop()

    watcher = threading.Thread(target=watch, daemon=True)

    def ready() -> None:
        began.append(time.perf_counter())
        watcher.start()

    cpu = time.process_time()
    loop.run(on_ready=ready)
    seconds = time.perf_counter() - began[0]
    result = {
        "ticks_per_s": ticks / seconds,
        "seconds": seconds,
        "cores": (time.process_time() - cpu) / seconds,
    }
    for stage in STAGES:
        spent = value(metrics, "mystocks_stage_seconds_sum", stage=stage)
        result[f"ns_{stage}"] = spent / ticks * 1e9
    return result


def value(metrics: LoopMetrics, name: str, **labels: str) -> float:
    """Returns the value of a metric, 0 where it has none yet."""
    return metrics.registry.get_sample_value(name, labels) or 0.0


def bare_consume(stack: dict[str, str], topic: str, messages: int) -> float:
    """Returns messages per second of consume(n) + value() + join, read_committed."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack["kafka"],
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 65_536,
            "fetch.queue.backoff.ms": 5,
            "max.partition.fetch.bytes": 4 * 1024**2,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    done = len(consumer.consume(1, 10))
    # As in the role: full collections over 20,000 live messages would halve the rate.
    gc.disable()
    began = time.perf_counter()
    while done < messages:
        got = consumer.consume(20_000, 0.05)
        b"".join([message.value() for message in got])
        done += len(got)
    rate = done / (time.perf_counter() - began)
    gc.enable()
    consumer.close()
    return rate


def bare_produce(stack: dict[str, str], settings: Settings, size: int, total: int) -> float:
    """Returns bytes per second of idempotent produce of blocks of `size` bytes."""
    topic = f"bench.produce.{uuid.uuid4().hex[:6]}"
    spec = next(s for s in topic_specs(settings) if s.name.startswith("features."))
    ensure_topics(settings, [spec.__class__(topic, "", "", "features", PARTITIONS, spec.config)])
    producer = Producer(
        {
            "bootstrap.servers": stack["kafka"],
            "enable.idempotence": True,
            "linger.ms": 0,
            "batch.size": 1024**2,
            "queue.buffering.max.kbytes": 256 * 1024,
        }
    )
    block = os.urandom(size)
    producer.produce(topic, block, partition=0)
    producer.flush()
    count = max(total // size, 1)
    began = time.perf_counter()
    for i in range(count):
        while True:
            try:
                producer.produce(topic, block, partition=i % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush()
    return count * size / (time.perf_counter() - began)


def output_blocks(stack: dict[str, str], topic: str) -> tuple[int, int]:
    """Returns number and bytes of the blocks in a features topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack["kafka"],
            "group.id": uuid.uuid4().hex,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    count = size = ends = 0
    while ends < PARTITIONS:
        for message in consumer.consume(1000, 0.2):
            if message.error() is not None:
                ends += 1
            else:
                count, size = count + 1, size + len(message.value())
    consumer.close()
    return count, size


def throughput(
    stack: dict[str, str],
    label: str,
    messages: list[tuple[int, bytes]],
    ticks: int,
    repeat: int,
    rounds: int,
    **features: object,
) -> dict[str, list[float]]:
    """Measures one encoding: the role and the bare rates, in turn."""
    name = f"{label}_{uuid.uuid4().hex[:6]}"
    base = settings_for(stack, name)
    ensure_topics(base, topic_specs(base, frozenset({"features"})))
    workload.send(stack["kafka"], base.features.source_topic, messages, repeat)
    total = ticks * repeat
    series: dict[str, list[float]] = {}

    def note(key: str, number: float) -> None:
        series.setdefault(key, []).append(number)

    for round_number in range(rounds):
        per_message = ticks / len(messages)
        consumed = bare_consume(stack, base.features.source_topic, len(messages) * repeat)
        run_name = f"{name}_{round_number}"
        settings = settings_for(
            stack, run_name, source_topic=base.features.source_topic, **features
        )
        ensure_topics(settings, topic_specs(settings, frozenset({"features"})))
        result = run_role(settings, total)
        blocks, size = output_blocks(stack, features_topic(run_name))
        produced = bare_produce(stack, settings, size // blocks, min(size, 600_000_000))
        note("ticks_per_s", result["ticks_per_s"])
        note("seconds", result["seconds"])
        note("cores", result["cores"])
        note("bare_consume_ticks_per_s", consumed * per_message)
        note("vs_bare_consume", result["ticks_per_s"] / (consumed * per_message))
        rate = size / result["seconds"]
        note("output_mb_per_s", rate / 1e6)
        note("bare_produce_mb_per_s", produced / 1e6)
        note("output_vs_bare_produce", rate / produced)
        for stage in STAGES:
            note(f"ns_{stage}", result[f"ns_{stage}"])
    return series


def up_ready(directory: Path) -> float:
    """Returns the seconds from the start of `mystocks up` to its ready line."""
    command = [sys.executable, "-m", "mystocks.cli.main", "up", "--ephemeral", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, cwd=directory, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"ready": true' in line:
            break
    seconds = time.perf_counter() - began
    process.terminate()
    process.communicate(timeout=30)
    return seconds


def main() -> None:
    """Runs everything and prints a table, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, at most 45 s; noisy")
    parser.add_argument("--json", action="store_true", help="last line: one flat JSON object")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 3, quick 1)")
    parser.add_argument("--only", default="", help="json, batch100, arrow500, latency or up")
    arguments = parser.parse_args()
    quick = arguments.quick
    rounds = arguments.rounds or (1 if quick else 3)
    flat: dict[str, float] = {}

    def report(key: str, numbers: list[float]) -> None:
        flat[key] = float(np.median(numbers))
        if not arguments.json:
            spread = f"min {min(numbers):14,.2f}   max {max(numbers):14,.2f}"
            print(f"{key:40s} median {flat[key]:14,.2f}   {spread}", flush=True)

    def wanted(part: str) -> bool:
        return arguments.only in ("", part)

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        if wanted("up"):
            report("up_ready_s", [up_ready(root) for _ in range(rounds)])
        with LocalStack(root / "stack", ephemeral=True, quick_start=True) as endpoints:
            stack = {"kafka": endpoints.kafka, "redis": endpoints.redis, "data_dir": directory}
            ticks = workload.make_ticks(250_000 if quick else 500_000)
            encodings: list[tuple[str, Callable[[], list[tuple[int, bytes]]], int]] = [
                ("json", lambda: workload.json_messages(ticks, PARTITIONS), 8),
                ("batch100", lambda: workload.batch_messages(ticks, PARTITIONS, 100), 24),
                ("arrow500", lambda: workload.arrow_messages(ticks, PARTITIONS, 500), 24),
            ]
            for label, make, full in encodings:
                if wanted(label):
                    repeat = max(full // 4, 4) if quick else full
                    series = throughput(stack, label, make(), len(ticks), repeat, rounds)
                    for key, numbers in series.items():
                        report(f"{label}_{key}", numbers)
            if wanted("latency"):
                measure_latency(stack, rounds, 2.5 if quick else 15.0, report)
    if arguments.json:
        print(json.dumps(flat))


def measure_latency(
    stack: dict[str, str],
    rounds: int,
    seconds: float,
    report: Callable[[str, list[float]], None],
) -> None:
    """Measures both guarantees in turn."""
    results: dict[str, list[float]] = {}
    for number in range(rounds):
        for prefix, guarantee in (("", "exactly_once"), ("alo_", "at_least_once")):
            name = f"latency_{prefix}{number}"
            settings = settings_for(stack, name, guarantee=guarantee)
            ensure_topics(settings, topic_specs(settings, frozenset({"features"})))
            for key, number_ms in latency.measure(settings, 10_000, seconds).items():
                results.setdefault(f"{prefix}redis_{key}_10k", []).append(number_ms)
    for key, numbers in results.items():
        report(key, numbers)


if __name__ == "__main__":
    main()
