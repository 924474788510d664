"""A small world to break: servers of its own, feature processes, and ticks that never stop."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from mystocks.cli.verify_run import verify_features, verify_ticks
from schemas.partitioner import partition_for
from schemas.settings import Settings, load_settings
from schemas.topics import dead_letter_topic, features_topic, topic_specs
from streams.kafka.admin import ensure_topics
from streams.kafka.bounded_read import TopicReader
from streams.kafka.errors import FENCED_EXIT_CODE, RESTART_EXIT_CODE
from streams.local.artifacts import ensure_jars
from streams.local.class_data import ensure_class_data
from streams.local.java import find_java
from streams.local.kafka import KafkaBroker
from streams.local.valkey import ValkeyServer
from streams.tables.feature_table import connect
from tests.faults.proof import Proof

PARTITIONS = 4
SYMBOLS = [f"F{i:03d}" for i in range(120)]
TICKS_PER_S = 4000
# Nothing may take longer than this to go on after the last fault.
RECOVERY_BOUND_S = 60.0
READY_BOUND_S = 60.0
TIME = 1_700_000_000_000_000_000

# Short enough that a test sees them pass; the defaults are 10 s, 10 s and 5 min.
SESSION_TIMEOUT_S = 3.0
TRANSACTION_TIMEOUT_S = 2.0
MAX_POLL_INTERVAL_S = 4.0
# Of the embedded broker in its cluster; see streams/local/kafka.py.
BROKER_SESSION_S = 3.0
_ROOT = Path(__file__).parents[2]


class Role:
    """One `features` process with a slot of its own."""

    def __init__(self, settings: Settings, slot: int, log: Path) -> None:
        self.slot = slot
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen | None = None
        self._metrics_url = ""
        self.ready = threading.Event()
        self.paused = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
        environment |= self._settings.as_environment()
        environment |= {"MYSTOCKS_LOG__FORMAT": "json", "MYSTOCKS_FEATURES__SLOT": str(self.slot)}
        self.ready = threading.Event()
        self.paused = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.slow_role", "features"],
            env=environment,
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with self._log.open("a") as log:
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            log.write(json.dumps({"event": "process started", "timestamp": now}) + "\n")
        arguments = (self._process, self.ready)
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    def _read(self, process: subprocess.Popen, ready: threading.Event) -> None:
        with self._log.open("a") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                if '"event": "ready"' in line:
                    self._metrics_url = json.loads(line)["metrics"]
                    ready.set()

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_BOUND_S
        while not self.ready.wait(0.1):
            assert time.monotonic() < deadline, f"slot {self.slot} is not ready; see {self._log}"
            if not self.running:
                self.start()

    def send(self, number: signal.Signals) -> None:
        if self.running:
            self._process.send_signal(number)
            self.paused = number == signal.SIGSTOP or (self.paused and number != signal.SIGCONT)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def stop(self) -> int:
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        return self._process.wait(30) if self._process is not None else 0

    def rows(self) -> float:
        """Returns the rows that this process has committed so far."""
        try:
            with urllib.request.urlopen(self._metrics_url, timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "mystocks_rows_out_total"
        )


class World:
    """Servers, roles and a producer; faults are done to it, then it is checked."""

    def __init__(self, directory: Path, seed: int, group_protocol: str = "classic") -> None:
        self.directory = directory
        self.random = random.Random(seed)
        java = find_java()
        jars = ensure_jars()
        self.broker = KafkaBroker(
            directory / "kafka",
            directory / "kafka.log",
            java=java,
            jars=jars,
            jvm_flags=ensure_class_data(java, jars),
            quick_start=True,
        )
        self.redis = ValkeyServer(directory / "redis", directory / "redis.log")
        self.broker.launch()
        self.redis.launch()
        self.broker.wait_ready()
        self.redis.wait_ready()
        self.settings = load_settings(
            kafka={
                "bootstrap_servers": self.broker.address,
                "partitions": PARTITIONS,
                "session_timeout_ms": int(SESSION_TIMEOUT_S * 1000),
                "max_poll_interval_ms": int(MAX_POLL_INTERVAL_S * 1000),
                "group_protocol": group_protocol,
            },
            redis={"url": f"redis://{self.redis.address}"},
            data_dir=directory / "data",
            features={
                "name": "faults",
                "source_topic": "faults.ticks",
                "snapshot_interval_s": 1.0,
                "transaction_timeout_ms": int(TRANSACTION_TIMEOUT_S * 1000),
                "on_unrestorable": "fail",
            },
        )
        ensure_topics(self.settings, topic_specs(self.settings, frozenset({"features"})))
        self.roles: list[Role] = []
        self.sent = 0
        self.garbage = 0
        self.exit_codes: list[int] = []
        self._proof = Proof(self.settings, lambda: connect(self.settings.redis))
        self._stopping = threading.Event()
        self._producer = threading.Thread(target=self._produce, daemon=True)

    def start(self) -> None:
        self.scale(1)
        self.roles[0].await_ready()
        self._producer.start()

    def close(self) -> None:
        self._stopping.set()
        for role in self.roles:
            role.kill()
        self._proof.close()
        self.broker.stop()
        self.redis.stop()

    @property
    def _source(self) -> str:
        return self.settings.features.source_topic

    # What faults do.

    def scale(self, count: int) -> None:
        """Starts or drains processes until there are `count`."""
        while len(self.roles) < count:
            slot = len(self.roles)
            role = Role(self.settings, slot, self.directory / f"features.{slot}.log")
            role.start()
            self.roles.append(role)
        while len(self.roles) > count:
            self.note_exit(self.roles.pop().stop())

    def revive(self) -> None:
        """Starts what has died, as a supervisor would."""
        for role in self.roles:
            if not role.running:
                self.note_exit(role.exit_code or 0)
                role.start()
            elif role.paused:
                role.send(signal.SIGCONT)

    def note_exit(self, code: int) -> None:
        self.exit_codes.append(code)
        # Killed, drained (also before it could say how to), fenced, in need of a new producer, or
        # the broker was away too long: anything else is a defect.
        expected = {-signal.SIGKILL, -signal.SIGTERM, 0, FENCED_EXIT_CODE, RESTART_EXIT_CODE, 69}
        assert code in expected, f"exit code {code}; {self.logs()}"

    def kill_broker(self) -> None:
        os.kill(self.broker.pid, signal.SIGKILL)
        self.broker.stop()

    def freeze_broker(self, seconds: float) -> None:
        os.kill(self.broker.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.broker.pid, signal.SIGCONT)

    def start_broker(self) -> None:
        self.broker.launch(self.broker.port)
        self.broker.wait_ready()

    def kill_redis(self) -> None:
        os.kill(self.redis.pid, signal.SIGKILL)
        self.redis.stop()

    def start_redis(self) -> None:
        self.redis.launch(self.redis.port)
        self.redis.wait_ready()

    def send_garbage(self, partition: int, count: int) -> None:
        """Fills a partition with bytes that are no ticks."""
        producer = Producer({"bootstrap.servers": self.broker.address})
        topic = self.settings.features.source_topic
        for _ in range(count):
            producer.produce(topic, self.random.randbytes(40) or b"x", partition=partition)
        assert producer.flush(30) == 0
        self.garbage += count

    def await_progress(self, rows: int = 2000, timeout_s: float = RECOVERY_BOUND_S) -> None:
        """Waits until somebody commits rows again."""
        deadline = time.monotonic() + timeout_s
        before = {role.slot: role.rows() for role in self.roles}
        while True:
            self.revive()
            gained = 0.0
            for role in self.roles:
                now = role.rows()
                gained += max(now - before.get(role.slot, 0.0), 0.0)
                if now < before.get(role.slot, 0.0):
                    before[role.slot] = 0.0
            if gained >= rows:
                return
            assert time.monotonic() < deadline, f"no progress; {self.logs()}"
            time.sleep(0.1)

    def _produce(self) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.broker.address,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )
        topic = self.settings.features.source_topic
        rng = random.Random(99)
        price = 100.0
        began = time.monotonic()
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * TICKS_PER_S)
            while self.sent < due:
                symbol = rng.choice(SYMBOLS)
                price = max(1.0, price + rng.gauss(0, 0.05))
                value = b'{"symbol":"%b","event_time_ns":%d,"price":%.4f,"size":1}' % (
                    symbol.encode(),
                    TIME + self.sent,
                    price,
                )
                producer.produce(topic, value, symbol, partition_for(symbol, PARTITIONS))
                self.sent += 1
            producer.poll(0.01)
        while producer.flush(1.0):
            pass

    # What must be true after each fault, and in the end.

    def prove(self) -> int:
        """Compares all rows of what was sent since the last fault, and Redis.

        Returns:
            How many rows there are.
        """
        return self._proof.check(self.sent, self.revive)

    def check(self) -> dict[str, float]:
        """Stops the ticks, waits for the rows, and proves every one of them."""
        self._stopping.set()
        self._producer.join(RECOVERY_BOUND_S)
        assert not self._producer.is_alive(), "the producer cannot deliver"
        began = time.monotonic()
        while self._committed_rows() < self.sent:
            self.revive()
            assert time.monotonic() - began < RECOVERY_BOUND_S, (
                f"{self._committed_rows()} of {self.sent} rows; {self.logs()}"
            )
            time.sleep(0.5)
        recovered = time.monotonic() - began
        self.revive()
        for role in self.roles:
            role.await_ready()
        assert self.prove() == self.sent
        for role in self.roles:
            self.note_exit(role.stop())
        report = verify_features(self.settings, features_topic("faults"))
        assert report.ok, report.problems
        counts = (report.rows, report.recomputed, verify_ticks(self.settings, self._source).ticks)
        assert counts == (self.sent,) * 3, f"{counts} of {self.sent}; {report.notes}"
        refused = self._dead_letters()
        assert refused == self.garbage, f"{refused} of {self.garbage} dead letters"
        return {"ticks": self.sent, "recovery_s": round(recovered, 1)}

    def _committed_rows(self) -> int:
        rows = 0
        with TopicReader(self.settings, features_topic("faults"), "check") as reader:
            for partition in range(PARTITIONS):
                last = None
                low, high = reader.span(partition)
                # A commit marker may stand behind the last block.
                for message in reader.read(partition, max(low, high - 40)):
                    last = message
                if last is not None:
                    headers = dict(last.headers())
                    rows += int(headers["first_row"]) + int(headers["rows"])
        return rows

    def _dead_letters(self) -> int:
        topic = dead_letter_topic(self.settings.features.source_topic)
        with TopicReader(self.settings, topic, "check") as reader:
            return sum(1 for p in range(PARTITIONS) for _ in reader.read(p))

    def logs(self) -> str:
        """Returns the ends of all logs, to see what went wrong."""
        texts = []
        for log in sorted(self.directory.glob("features.*.log")):
            texts.append(f"--- {log.name}\n" + "".join(log.read_text().splitlines(True)[-15:]))
        return "\n".join(texts)
