"""Starts a real `features` role on the session's broker, and reads back what it wrote."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from schemas.partitioner import partition_for
from schemas.settings import Settings, load_settings
from schemas.topics import dead_letter_topic, features_topic, topic_specs
from streams.kafka.admin import ensure_topics

PARTITIONS = 4
READY_S = 60.0


class RoleRig:
    """A role in a process of its own, or none, and its source topic.

    Args:
        role: Name of the role.
        settings: Of the process.
        source: Topic that it reads.
    """

    def __init__(self, role: str, settings: Settings, source: str) -> None:
        self.role = role
        self.settings = settings
        self.source = source
        self.kafka = settings.kafka.bootstrap_servers
        self.process: subprocess.Popen | None = None
        self.metrics_url = ""
        self.lines: list[str] = []
        self._producer = Producer(
            {"bootstrap.servers": self.kafka, "enable.idempotence": True, "linger.ms": 5}
        )

    def start(self) -> None:
        """Starts the role and waits until it is ready."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
        environment |= self.settings.as_environment() | {"MYSTOCKS_LOG__FORMAT": "json"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mystocks.roles", self.role],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process, ready), daemon=True).start()
        deadline = time.monotonic() + READY_S
        while not ready.wait(0.05):
            assert self.process.poll() is None, "".join(self.lines[-20:])
            assert time.monotonic() < deadline, "".join(self.lines[-20:])

    def _read(self, process: subprocess.Popen, ready: threading.Event) -> None:
        for line in process.stdout:
            self.lines.append(line)
            if '"event": "ready"' in line:
                self.metrics_url = json.loads(line)["metrics"]
                ready.set()

    def kill(self) -> None:
        """Ends the role without giving it a chance."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Drains the role; returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)

    def produce(self, messages: Iterable[tuple[str, bytes | None]], headers=None) -> None:
        """Writes (symbol, value) pairs to the source topic, by murmur2 of the symbol."""
        for symbol, value in messages:
            self._producer.produce(
                self.source,
                value,
                symbol,
                partition_for(symbol, PARTITIONS),
                headers=headers,
            )
            self._producer.poll(0)
        self._producer.flush()

    def produce_on(self, partition: int, symbol: str, value: bytes) -> None:
        """Writes a value to a partition of the source topic, wherever its symbol belongs."""
        self._producer.produce(self.source, value, symbol, partition)
        self._producer.flush()

    def metric(self, name: str, **labels: str) -> float:
        """Returns the sum of a metric over its labels, or over those that have these values."""
        with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


class FeaturesRig(RoleRig):
    """A feature set of its own, with or without a running role."""

    def __init__(
        self,
        name: str,
        kafka: str,
        redis: str,
        data_dir: Path,
        group: dict[str, object] | None = None,
        **features: object,
    ) -> None:
        features.setdefault("source_topic", f"{name}.ticks")
        settings = load_settings(
            kafka={"bootstrap_servers": kafka, "partitions": PARTITIONS} | (group or {}),
            redis={"url": redis},
            data_dir=data_dir,
            features={"name": name, **features},
        )
        super().__init__("features", settings, settings.features.source_topic)
        self.output = features_topic(name)
        ensure_topics(self.settings, topic_specs(self.settings, frozenset({"features"})))

    def await_rows(self, count: int, timeout_s: float = 60.0) -> "Rows":
        """Reads the features topic until it holds `count` rows, read_committed."""
        rows = Rows()
        reader = committed_reader(self.kafka, self.output)
        deadline = time.monotonic() + timeout_s
        while len(rows) < count and time.monotonic() < deadline:
            for message in reader.consume(500, 0.2):
                if message.error() is None:
                    rows.add(message)
        # Whatever comes too much comes now.
        for message in reader.consume(500, 1.0):
            if message.error() is None:
                rows.add(message)
        reader.close()
        assert len(rows) == count, f"{len(rows)} of {count} rows\n{''.join(self.lines[-20:])}"
        return rows

    def await_identities(self, counts: dict[int, int], timeout_s: float = 60.0) -> "Rows":
        """Reads until the last of so many row identities of every partition was seen."""
        rows = Rows()
        reader = committed_reader(self.kafka, self.output)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for message in reader.consume(500, 0.2):
                if message.error() is None:
                    rows.add(message)
            if all(count - 1 in rows.numbers(p)[-5000:] for p, count in counts.items()):
                break
        reader.close()
        return rows

    def dead_letters(self, count: int, timeout_s: float = 30.0) -> list[Message]:
        """Reads the dead letters until there are `count`."""
        reader = committed_reader(self.kafka, dead_letter_topic(self.source))
        letters: list[Message] = []
        deadline = time.monotonic() + timeout_s
        while len(letters) < count and time.monotonic() < deadline:
            letters += [m for m in reader.consume(100, 0.2) if m.error() is None]
        letters += [m for m in reader.consume(100, 0.5) if m.error() is None]
        reader.close()
        assert len(letters) == count
        return letters


def committed_reader(kafka: str, topic: str) -> Consumer:
    """Returns a consumer of all partitions from the start."""
    reader = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    reader.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    return reader


class Rows:
    """Rows of a features topic by partition, in log order, with their identities."""

    def __init__(self) -> None:
        self._blocks: dict[int, list[pa.RecordBatch]] = defaultdict(list)
        self._numbers: dict[int, list[np.ndarray]] = defaultdict(list)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, message: Message) -> None:
        batch = pa.ipc.open_stream(message.value()).read_next_batch()
        first = int(dict(message.headers())["first_row"])
        self._blocks[message.partition()].append(batch)
        self._numbers[message.partition()].append(np.arange(first, first + len(batch)))
        self._count += len(batch)

    def numbers(self, partition: int) -> np.ndarray:
        parts = self._numbers.get(partition)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def columns(self, partition: int) -> dict[str, list]:
        """Returns the columns of a partition; floats as their bits, so that equal is equal."""
        table = pa.Table.from_batches(self._blocks[partition])
        plain = {"symbol": table["symbol"].cast(pa.string()).to_pylist()}
        for name in table.column_names[1:]:
            column = table[name].combine_chunks()
            missing = np.array(column.is_null())
            if pa.types.is_floating(column.type):
                bits = column.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.int64)
            else:
                bits = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            plain[name] = np.where(missing, np.iinfo(np.int64).min, bits).tolist()
        return plain

    def last(self) -> dict[str, dict]:
        """Returns the last row of every symbol."""
        found = {}
        for blocks in self._blocks.values():
            table = pa.Table.from_batches(blocks)
            symbols = table["symbol"].cast(pa.string()).to_pylist()
            newest = {symbol: i for i, symbol in enumerate(symbols)}
            for symbol, i in newest.items():
                row = {name: table[name][i].as_py() for name in table.column_names[2:]}
                found[symbol] = row | {"event_time_ns": table["event_time"][i].value}
        return found

    def assert_gap_free(self) -> None:
        """Every row identity of every partition exactly once, in order."""
        for partition in self._numbers:
            numbers = self.numbers(partition)
            assert np.array_equal(numbers, np.arange(len(numbers))), f"partition {partition}"
