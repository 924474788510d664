"""The gRPC bridge on a real broker, beside a bare grpc.aio echo of the same messages.

Ten streams send single ticks and batches of 500 and read their rows back, each identity once; a
hundred subscribers read all symbols, and come back to a bridge that has just started; a thousand
streams send a tick a second; ComputeFeatures of 500 rows and 5 features. Clients are processes of
their own (`bridge_load.py`).

    python benchmarks/bridge.py [--quick] [--json] [--rounds N] [--only PART]

Broker, roles, bridge and clients share the machine; `cores` says how many there are.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import workload
from mystocks.v1 import realtime_pb2, realtime_pb2_grpc
from schemas.settings import Settings, load_settings
from schemas.topics import topic_specs
from streams.kafka.admin import ensure_topics
from streams.local.stack import LocalStack

# One for each core: a client sends a request for each partition, and most of what the broker does
# is the same for every request.
PARTITIONS = 2
# A broker is quickest once its runtime has compiled what is hot. With `--quick` there is no time
# for that, and it is started without the compiler that would need it.
WARM_UP_S = 75
LOAD = Path(__file__).with_name("bridge_load.py")
PARTS = (
    "echo",
    "single",
    "sdk",
    "batch",
    "processes",
    "latency",
    "fanout",
    "resume",
    "idle",
    "compute",
)
STREAMS = 10
SUBSCRIBERS = 100
IDLE_STREAMS = 1000
FANOUT_RATE = 15_000
# Readers that come back have missed so much.
AWAY_S = 5.0


class Roles:
    """Role processes of one system."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: list[subprocess.Popen] = []

    def start(self, role: str, **variables: str) -> tuple[subprocess.Popen, dict]:
        """Starts a role and returns its process and its ready line."""
        process = subprocess.Popen(
            [sys.executable, "-m", "mystocks.roles", role],
            env=os.environ | self._settings.as_environment() | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if '"event": "ready"' in line:
                threading.Thread(target=process.stdout.read, daemon=True).start()
                return process, json.loads(line)
        raise RuntimeError(f"role {role} ended")

    def stop(self, process: subprocess.Popen) -> None:
        self._running.remove(process)
        process.terminate()
        process.wait(30)

    def stop_all(self) -> None:
        for process in list(self._running):
            self.stop(process)


def load(mode: str, address: str, *arguments: object) -> dict[str, float]:
    """Runs a client process and returns what it measured."""
    command = [sys.executable, str(LOAD), mode, address, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{mode}: {result.stderr[-2000:]}")
    return json.loads(result.stdout.splitlines()[-1])


@contextmanager
def echo_server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(LOAD), "serve-echo"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def ticks_flowing(settings: Settings, rate: int) -> Iterator[None]:
    """A plain Kafka client sends batches of 100 at a steady rate meanwhile."""
    stopping = threading.Event()

    def produce() -> None:
        from confluent_kafka import Producer

        producer = Producer(settings.kafka.as_librdkafka())
        messages = workload.batch_messages(workload.make_ticks(50_000), PARTITIONS, 100)
        began, sent = time.perf_counter(), 0
        while not stopping.is_set():
            due = int((time.perf_counter() - began) * rate / 100)
            while sent < due:
                partition, value = messages[sent % len(messages)]
                producer.produce(settings.features.source_topic, value, partition=partition)
                sent += 1
            producer.poll(0)
            time.sleep(0.002)
        producer.flush(10)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def token_of_now(address: str) -> bytes:
    """Returns a ResumeToken of the present."""
    with grpc.insecure_channel(address) as link:
        stub = realtime_pb2_grpc.RealTimeServiceStub(link)
        call = stub.SubscribeFeatures(realtime_pb2.SubscribeFeaturesRequest(), timeout=30)
        token = next(call).resume.SerializeToString()
        call.cancel()
    return token


def resident_bytes(process: subprocess.Popen) -> int:
    """Returns the resident memory of a process (Linux)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def peak_memory(process: subprocess.Popen, stop: threading.Event, into: list[int]) -> None:
    while not stop.wait(0.2):
        into.append(resident_bytes(process))


def measure(
    roles: Roles,
    settings: Settings,
    bridge: tuple[subprocess.Popen, dict],
    wanted: Callable[[str], bool],
    quick: bool,
    note: Callable[[str, float], None],
) -> None:
    """Does one round."""
    process, ready = bridge
    address = ready["grpc"]
    small = 0.2 if quick else 1.0
    load("single", address, 2000)
    echo = None
    if wanted("echo") or wanted("single"):
        with echo_server() as echo_address:
            echo = load("echo", echo_address, 60_000 * small)["ticks_per_s"]
        note("bare_echo_per_s", echo)
    if wanted("single"):
        single = load("single", address, 60_000 * small)["ticks_per_s"]
        note("stream_single_ticks_per_s", single)
        if echo is not None:
            note("stream_single_vs_bare_echo", single / echo)
    if wanted("sdk"):
        note("sdk_single_ticks_per_s", load("sdk", address, 400_000 * small)["ticks_per_s"])
    if wanted("batch"):
        note("stream_batch_ticks_per_s", load("batch", address, 2_000_000 * small)["ticks_per_s"])
    if wanted("processes"):
        note("bridge_processes_2", two_processes(roles, small))
    if wanted("latency"):
        result = load("paced", address, STREAMS, 5000, 8 if not quick else 3)
        note("stream_p50_ms", result["p50_ms"])
        note("stream_p99_ms", result["p99_ms"])
    if wanted("fanout"):
        with ticks_flowing(settings, FANOUT_RATE):
            result = load("fanout", address, SUBSCRIBERS, 6 if not quick else 2)
        note("fanout_rows_per_s", result["rows_per_s"])
        note("fanout_source_rows_per_s", result["rows_per_s"] / SUBSCRIBERS)
    if wanted("resume"):
        with ticks_flowing(settings, FANOUT_RATE):
            token = token_of_now(address)
            time.sleep(1.0 if quick else AWAY_S)
            fresh, ready = roles.start("bridge")
            result = load("resume", ready["grpc"], SUBSCRIBERS, token.hex())
            roles.stop(fresh)
        note("resume_100_s", result["seconds"])
        note("resume_rows_per_s", result["rows_per_s"])
    if wanted("idle"):
        before, seen, stop = resident_bytes(process), [], threading.Event()
        watcher = threading.Thread(target=peak_memory, args=(process, stop, seen))
        watcher.start()
        result = load("paced", address, IDLE_STREAMS, IDLE_STREAMS, 9 if not quick else 3)
        stop.set()
        watcher.join()
        note("streams_1000_p50_ms", result["p50_ms"])
        note("streams_1000_p99_ms", result["p99_ms"])
        note("stream_memory_kb", (max(seen) - before) / IDLE_STREAMS / 1024)
    if wanted("compute"):
        result = load("compute", address, 3 if quick else 6, 4)
        note("compute_p50_ms", result["p50_ms"])
        note("compute_p99_ms", result["p99_ms"])
        note("compute_per_s", load("compute", address, 3 if quick else 6, 64)["per_s"])


def two_processes(roles: Roles, small: float) -> float:
    """Returns the single-tick rate of two bridge processes on one port over that of one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"MYSTOCKS_GRPC__PORT": port, "MYSTOCKS_GRPC__REUSE_PORT": "true"}
    started = []
    rates = []
    for _ in range(2):
        started.append(roles.start("bridge", **shared)[0])
        # Two clients, since one is the limit; connections spread over the processes by chance.
        rates.append(pair_of_clients(f"127.0.0.1:{port}", 40_000 * small))
    for process in started:
        roles.stop(process)
    return rates[1] / rates[0]


def pair_of_clients(address: str, count: float) -> float:
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda client: load("single", address, count, client), (1, 2))
        return sum(result["ticks_per_s"] for result in results)


def main() -> None:
    """Runs everything and prints a table, or one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round, at most 45 s; noisy")
    parser.add_argument("--json", action="store_true", help="last line: one flat JSON object")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 3, quick 1)")
    parser.add_argument("--only", default="", help=", ".join(PARTS))
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    series: dict[str, list[float]] = {"cores": [float(os.cpu_count() or 0)]}

    def note(key: str, number: float) -> None:
        series.setdefault(key, []).append(number)
        print(f"{key:32s} {number:14,.2f}", file=sys.stderr, flush=True)

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoints = stack.enter_context(
            LocalStack(directory / "stack", ephemeral=True, quick_start=arguments.quick)
        )
        settings = load_settings(
            kafka={"bootstrap_servers": endpoints.kafka, "partitions": PARTITIONS},
            redis={"url": endpoints.redis},
            grpc={"port": 0, "max_streams": 2000},
            data_dir=directory,
        )
        ensure_topics(settings, [s for s in topic_specs(settings) if not s.is_pattern])
        roles = Roles(settings)
        stack.callback(roles.stop_all)
        roles.start("features")
        roles.start("compute")
        bridge = roles.start("bridge")
        if not arguments.quick:
            load("paced", bridge[1]["grpc"], STREAMS, 5000, WARM_UP_S)
        for _ in range(rounds):
            measure(
                roles,
                settings,
                bridge,
                lambda part: arguments.only in ("", part),
                arguments.quick,
                note,
            )
    flat = {key: float(np.median(numbers)) for key, numbers in series.items()}
    if arguments.json:
        print(json.dumps(flat))
        return
    for key, numbers in series.items():
        spread = f"min {min(numbers):14,.2f}   max {max(numbers):14,.2f}"
        print(f"{key:32s} median {flat[key]:14,.2f}   {spread}")


if __name__ == "__main__":
    main()
