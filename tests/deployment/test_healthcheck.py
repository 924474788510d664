"""The image's health check against the servers that it asks."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from streams.local.ports import free_port
from streams.metrics import LoopMetrics

SCRIPT = Path(__file__).parents[2] / "scripts" / "healthcheck.py"


def check(*arguments: str, **ports: int) -> tuple[int, str]:
    environment = {name: str(port) for name, port in ports.items()}
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_role_is_healthy_once_it_is_ready():
    metrics = LoopMetrics()
    port = int(metrics.serve("127.0.0.1", 0).split(":")[2].split("/")[0])
    assert check(MYSTOCKS_METRICS__PORT=port) == (1, "not ready yet\n")
    metrics.ready()
    assert check(MYSTOCKS_METRICS__PORT=port) == (0, "ready\n")


def test_role_that_is_gone_is_not_healthy():
    status, text = check(MYSTOCKS_METRICS__PORT=free_port())
    assert status == 1
    assert "no answer" in text


@pytest.fixture
def bridge():
    """A health service and the port it is on."""
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, port
    server.stop(None).wait()


def test_bridge_is_healthy_while_it_says_serving(bridge):
    servicer, port = bridge
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    assert check("grpc", MYSTOCKS_GRPC__PORT=port) == (0, "ready\n")
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert check("grpc", MYSTOCKS_GRPC__PORT=port) == (1, "the bridge says NOT_SERVING\n")


def test_bridge_that_is_gone_is_not_healthy():
    assert check("grpc", MYSTOCKS_GRPC__PORT=free_port()) == (
        1,
        "no answer from the bridge: UNAVAILABLE\n",
    )


def test_other_arguments_are_refused():
    status, text = check("redis", MYSTOCKS_METRICS__PORT=1)
    assert status == 2
    assert "redis" in text
