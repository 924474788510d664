"""Starts real `compute` roles on the session's broker, and asks them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from mystocks.v1.market_pb2 import FeatureBlock, OhlcvRows
from mystocks.v1.realtime_pb2 import ComputeFeaturesRequest, ComputeFeaturesResponse
from schemas.compute_codec import decode_failure
from schemas.settings import Settings, load_settings
from schemas.topics import topic_specs
from streams.kafka.admin import ensure_topics
from streams.requests.requester import Requester
from streams.requests.topics import RequestTopics

READY_S = 60.0
TIMEOUT_S = 20.0


class ComputeRole:
    """One process."""

    def __init__(self, settings: Settings) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
        environment |= settings.as_environment() | {"MYSTOCKS_LOG__FORMAT": "json"}
        self.lines: list[str] = []
        self.metrics_url = ""
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mystocks.roles", "compute"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def await_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self._ready.wait(0.05):
            assert self.process.poll() is None, "".join(self.lines[-20:])
            assert time.monotonic() < deadline, "".join(self.lines[-20:])

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            if '"event": "ready"' in line:
                self.metrics_url = json.loads(line)["metrics"]
                self._ready.set()

    def kill(self) -> None:
        """Ends the role without giving it a chance."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """Drains the role; returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(30)


class ComputeRig:
    """An environment of its own, with or without running roles."""

    def __init__(self, name: str, kafka: str, data_dir: Path, **settings: dict) -> None:
        settings.setdefault("features", {"name": name, "source_topic": f"{name}.ticks"})
        self.settings: Settings = load_settings(
            environment=name,
            kafka={"bootstrap_servers": kafka, "partitions": 4},
            data_dir=data_dir,
            **settings,
        )
        ensure_topics(self.settings, topic_specs(self.settings, frozenset({"features", "compute"})))
        self.roles: list[ComputeRole] = []

    def start(self) -> ComputeRole:
        """Starts a role and waits until it is ready."""
        role = ComputeRole(self.settings)
        self.roles.append(role)
        role.await_ready()
        return role

    async def requester(self) -> Requester:
        requester = Requester(self.settings, RequestTopics.of(self.settings, "compute"))
        await requester.start()
        return requester

    def stop(self) -> None:
        for role in self.roles:
            role.stop()


async def compute(
    requester: Requester, features: list[str], rows: OhlcvRows | None = None, **fields: object
) -> FeatureBlock:
    """Returns the answer, or raises the error in the reply."""
    request = ComputeFeaturesRequest(features=features, rows=rows, **fields)
    reply = await requester.ask(request.SerializeToString(), TIMEOUT_S)
    if reply.failed:
        raise decode_failure(reply.value)
    return ComputeFeaturesResponse.FromString(reply.value).features
