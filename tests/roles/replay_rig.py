"""Ticks with a day of event time, what live made of them, and replays of it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable

import numpy as np

from mystocks.replay_job import ReplayJob
from mystocks.v1.job_types_pb2 import Job
from mystocks.v1.jobs_pb2 import JobCommand, JobEvent
from schemas.jobs import (
    JOB_EVENTS_TOPIC,
    REPLAY_COMMANDS_TOPIC,
    replay_group,
    replay_job_id,
    state_name,
)
from schemas.partitioner import partition_for
from schemas.replay import ReplayRequest
from schemas.settings import Settings
from schemas.topics import topic_specs
from streams.jobs.commands import CommandSender
from streams.jobs.events import JobEventReader
from streams.kafka.admin import ensure_topics
from tests.roles.rig import PARTITIONS, FeaturesRig, Rows, committed_reader

DAY = 1_700_000_000_000_000_000
SECOND = 10**9
SYMBOLS = [f"R{i:02d}" for i in range(23)]


def ticks(count: int, seed: int = 1, *, step_ns: int = SECOND) -> list[tuple[str, bytes]]:
    """Returns (symbol, JSON tick) pairs, now and then one up to a minute late.

    Every tick's record time is its event time, as our producers have it.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(SYMBOLS), count)
    late = np.where(rng.random(count) < 0.02, rng.integers(0, 60, count), 0)
    prices = np.round(100 + np.cumsum(rng.normal(0, 0.05, count)), 3)
    return [
        (
            SYMBOLS[c],
            b'{"symbol":"%b","event_time_ns":%d,"price":%.3f,"size":1}'
            % (SYMBOLS[c].encode(), DAY + (i - int(late[i])) * step_ns, prices[i]),
        )
        for i, c in enumerate(chosen.tolist())
    ]


def messy_ticks(count: int, seed: int = 3, *, jumps: float = 0.0) -> list[tuple[str, bytes]]:
    """Returns numbered ticks as `ticks` does: some too late for 5 s, some sent twice.

    Args:
        count: Messages, those that are sent twice included.
        seed: Of the random numbers.
        jumps: Share of ticks that are days ahead, or older than all others by hours.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[str, bytes]] = []
    for i in range(count):
        if found and rng.random() < 0.05:
            found.append(found[-int(rng.integers(1, min(len(found), 400) + 1))])
            continue
        symbol = SYMBOLS[rng.integers(len(SYMBOLS))]
        behind = int(rng.choice([0, 3, 60], p=[0.9, 0.05, 0.05]))
        if rng.random() < jumps:
            behind = int(rng.choice([-200_000, 20_000]))
        tick = {
            "symbol": symbol,
            "event_time_ns": DAY + (i - behind) * SECOND,
            "price": round(100 + float(rng.normal()), 3),
            "sequence": i,
        }
        found.append((symbol, json.dumps(tick).encode()))
    return found


def run_name(settings: Settings, run: str) -> str:
    """Returns a name that no other test has; runs of one name would end each other."""
    return f"{settings.features.name}-{run}"


def replay(settings: Settings, run: str, **request: object) -> ReplayJob:
    """Runs a replay in this process to its end."""
    job = ReplayJob(settings, ReplayRequest(run=run_name(settings, run), **request))
    assert job.run() == "finished"
    return job


def rows_of(kafka: str, topic: str, count: int, timeout_s: float = 30.0) -> Rows:
    """Returns the committed rows of a topic that must hold `count`."""
    rows = Rows()
    reader = committed_reader(kafka, topic)
    deadline = time.monotonic() + timeout_s
    while len(rows) < count and time.monotonic() < deadline:
        for message in reader.consume(500, 0.2):
            if message.error() is None:
                rows.add(message)
    for message in reader.consume(500, 0.5):
        if message.error() is None:
            rows.add(message)
    reader.close()
    assert len(rows) == count, f"{len(rows)} of {count} rows in {topic}"
    return rows


def selected(
    live: Rows,
    partition: int,
    start_ns: int,
    end_ns: int | None = None,
    symbols: Iterable[str] | None = None,
) -> dict[str, list]:
    """Returns the columns of those live rows that a replay should have, as bits."""
    if not len(live.numbers(partition)):
        return {}
    columns = live.columns(partition)
    wanted = None if symbols is None else set(symbols)
    keep = [
        i
        for i, (symbol, time) in enumerate(
            zip(columns["symbol"], columns["event_time"], strict=True)
        )
        if time >= start_ns
        and (end_ns is None or time < end_ns)
        and (wanted is None or symbol in wanted)
    ]
    return {name: [values[i] for i in keep] for name, values in columns.items()}


def assert_same(
    live: Rows,
    replayed: Rows,
    start_ns: int,
    end_ns: int | None = None,
    symbols: Iterable[str] | None = None,
) -> None:
    """The replay has exactly the rows of live in the range, bit for bit, numbered from 0."""
    replayed.assert_gap_free()
    for partition in range(PARTITIONS):
        wanted = selected(live, partition, start_ns, end_ns, symbols)
        if not wanted or not wanted["symbol"]:
            assert not len(replayed.numbers(partition))
        else:
            assert replayed.columns(partition) == wanted


def count_of(
    live: Rows, start_ns: int, end_ns: int | None = None, symbols: Iterable[str] | None = None
) -> int:
    """How many rows of live are in the range."""
    return sum(
        len(selected(live, p, start_ns, end_ns, symbols).get("symbol", ()))
        for p in range(PARTITIONS)
    )


def produce_timed(rig: FeaturesRig, messages: Iterable[tuple[str, bytes]]) -> None:
    """Writes ticks with their event time as record time, as our producers do."""
    for symbol, value in messages:
        rig._producer.produce(
            rig.source,
            value,
            symbol,
            partition_for(symbol, PARTITIONS),
            timestamp=json.loads(value)["event_time_ns"] // 1_000_000,
        )
        rig._producer.poll(0)
    rig._producer.flush()


def in_environment(rig: FeaturesRig, name: str) -> None:
    """Gives a rig an environment of its own: jobs of several tests share their topics."""
    rig.settings = rig.settings.model_copy(update={"environment": name})
    ensure_topics(rig.settings, topic_specs(rig.settings, frozenset({"features", "jobs"})))


class ReplayRole:
    """A process of role `replay`."""

    def __init__(self, settings: Settings) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
        environment |= settings.as_environment() | {"MYSTOCKS_LOG__FORMAT": "json"}
        self._environment = environment
        self.lines: list[str] = []
        self.start()

    def start(self) -> None:
        """Starts it and waits until it takes commands."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mystocks.roles", "replay"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process, ready), daemon=True).start()
        deadline = time.monotonic() + 60
        while not ready.wait(0.05):
            assert self.process.poll() is None, "".join(self.lines[-20:])
            assert time.monotonic() < deadline, "".join(self.lines[-20:])

    def _read(self, process: subprocess.Popen, ready: threading.Event) -> None:
        for line in process.stdout:
            self.lines.append(line)
            if '"event": "ready"' in line:
                ready.set()

    def kill(self) -> None:
        """Ends it without giving it a chance."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """Lets it hand over what it runs; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(40)


class Jobs:
    """Asks role `replay` and looks at what becomes of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sender = CommandSender(
            settings, REPLAY_COMMANDS_TOPIC, replay_group(settings.environment)
        )

    def id_of(self, run: str) -> str:
        return replay_job_id(self._settings.environment, run)

    def send(self, run: str, **request: object) -> None:
        spec = ReplayRequest(run=run, **request).as_spec()
        self._sender.send(JobCommand(job_id=self.id_of(run), replay=spec))

    def tell(self, run: str, **what: object) -> None:
        self._sender.send(JobCommand(job_id=self.id_of(run), **what))

    def await_job(self, run: str, condition: Callable[[Job], bool], timeout_s: float = 60.0) -> Job:
        """Waits until the job's record is as wanted."""
        reader = JobEventReader(self._settings, "test")
        try:
            reader.open(self.id_of(run))
            deadline = time.monotonic() + timeout_s
            while reader.job is None or not condition(reader.job):
                assert time.monotonic() < deadline, f"waited for {run}: {reader.job}"
                reader.poll(0.2)
            return reader.job
        finally:
            reader.close()

    def states(self, run: str) -> list[tuple[int, str]]:
        """Returns (attempt, state) of all events of a job, without repetitions in a row."""
        found: list[tuple[int, str]] = []
        reader = committed_reader(self._settings.kafka.bootstrap_servers, JOB_EVENTS_TOPIC)
        deadline = time.monotonic() + 30
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            messages = reader.consume(500, 0.3)
            quiet = 0 if messages else quiet + 1
            for message in messages:
                if message.error() is None and message.key().startswith(self.id_of(run).encode()):
                    job = JobEvent.FromString(message.value()).job
                    state = (job.attempt, state_name(job.state))
                    if not found or found[-1] != state:
                        found.append(state)
        reader.close()
        return found
