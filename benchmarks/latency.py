"""Latency of the features role: from before `produce()` until Redis shows the tick.

The role runs in a process of its own, as does the reader, which polls HGET of a probe symbol at
most every millisecond. Ticks are single JSON messages at a steady rate from a plain client with
its default linger (5 ms); the probe's carry the wall
clock as event time. What counts is when a probe's tick or a newer one of the same symbol is there.
The first third is dropped.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
from confluent_kafka import Producer

from benchmarks import workload
from schemas.settings import Settings

# Every so many ticks one is the probe's: 50 a second at 10,000 ticks/s.
_PROBE_EVERY = 200
_PROBE = "PROBE"
# With the time of the call itself: at most one millisecond.
_POLL_S = 0.0007
_EVENT_TIME = re.compile(rb'"event_time_ns":(\d+)')


def measure(settings: Settings, rate: int, seconds: float) -> dict[str, float]:
    """Runs a role and returns p50 and p99 in milliseconds, and probes that never arrived.

    Args:
        settings: Servers and feature set; the topics exist.
        rate: Ticks per second.
        seconds: How long.
    """
    role = subprocess.Popen(
        [sys.executable, "-m", "mystocks.roles", "features"],
        env=os.environ | settings.as_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert role.stdout is not None
        for line in role.stdout:
            if '"event": "ready"' in line:
                break
        threading.Thread(target=role.stdout.read, daemon=True).start()
        reader = subprocess.Popen(
            [
                sys.executable,
                __file__,
                settings.redis.url.get_secret_value(),
                f"features:{settings.features.name}",
                str(seconds + 1.5),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(0.5)
        sent = _produce(settings, rate, seconds)
        seen = json.loads(reader.communicate(timeout=seconds + 30)[0])
    finally:
        role.terminate()
        role.wait(20)
    return _delays(sent, seen)


def _delays(sent: list[int], seen: list[tuple[int, int]]) -> dict[str, float]:
    probes = np.array(sent[len(sent) // 3 :])
    reads = np.array([now for now, _ in seen])
    times = np.array([at for _, at in seen])
    first = np.searchsorted(times, probes)
    arrived = first < len(times)
    delays = (reads[np.minimum(first, len(reads) - 1)] - probes)[arrived] / 1e6
    return {
        "p50_ms": float(np.percentile(delays, 50)),
        "p99_ms": float(np.percentile(delays, 99)),
        "missing": float((~arrived).sum()),
    }


def _produce(settings: Settings, rate: int, seconds: float) -> list[int]:
    """Produces JSON ticks at a steady rate and returns when each probe was sent, in ns."""
    producer = Producer(
        settings.kafka.as_librdkafka()
        | {"enable.idempotence": True, "partitioner": "murmur2_random"}
    )
    names = [f"SY{i:04d}" for i in range(workload.SYMBOLS)]
    sent: list[int] = []
    began, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        due = int(elapsed * rate)
        for i in range(count, due):
            symbol = _PROBE if i % _PROBE_EVERY == 0 else names[i * 7919 % len(names)]
            now = time.time_ns()
            if symbol == _PROBE:
                sent.append(now)
            value = b'{"symbol":"%b","event_time_ns":%d,"price":%.4f,"size":1}' % (
                symbol.encode(),
                now,
                100 + i % 977 * 0.01,
            )
            producer.produce(settings.features.source_topic, value, symbol)
        count = due
        producer.poll(0)
        time.sleep(0.0005)
    producer.flush()
    return sent


def _watch(url: str, table: str, seconds: float) -> None:
    """Polls the probe's row and prints (wall clock, event time) of every change, in ns.

    By bare RESP on a socket: a client library would take a fifth of a core for this.
    """
    address = urlsplit(url)
    request = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(table),
        table.encode(),
        len(_PROBE),
        _PROBE.encode(),
    )
    seen: list[tuple[int, int]] = []
    end = time.monotonic() + seconds
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < end:
            connection.sendall(request)
            answer = connection.recv(65_536)
            now = time.time_ns()
            found = _EVENT_TIME.search(answer)
            if found is not None and (not seen or int(found[1]) != seen[-1][1]):
                seen.append((now, int(found[1])))
            time.sleep(_POLL_S)
    print(json.dumps(seen))


if __name__ == "__main__":
    _watch(sys.argv[1], sys.argv[2], float(sys.argv[3]))
