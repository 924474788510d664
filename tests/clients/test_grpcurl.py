"""grpcurl, which knows no .proto file: what a person at a terminal tries first."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.kafka

_PROGRAM = shutil.which("grpcurl", path=str(Path(sys.executable).parent)) or shutil.which("grpcurl")


@pytest.fixture
def grpcurl(address):
    def run(*arguments: str, code: int = 0) -> str:
        *options, method = arguments
        done = subprocess.run(
            [_PROGRAM, "-plaintext", *options, address, *method.split()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout or done.stderr

    return run


def test_list_shows_the_services(grpcurl):
    services = grpcurl("list").split()
    assert {"mystocks.v1.RealTimeService", "grpc.health.v1.Health"} <= set(services)
    methods = grpcurl("list mystocks.v1.RealTimeService").split()
    assert "mystocks.v1.RealTimeService.ComputeFeatures" in methods


def test_describe_shows_the_fields(grpcurl):
    assert "sfixed64 event_time_ns = 2;" in grpcurl("describe mystocks.v1.Tick")


def test_health_check(grpcurl):
    assert json.loads(grpcurl("grpc.health.v1.Health/Check")) == {"status": "SERVING"}


def test_stream_of_ticks_then_get_features(grpcurl):
    now = time.time_ns()
    sent = [
        {"number": i, "tick": {"symbol": "GRPCURL", "eventTimeNs": now + i, "price": 10 + i}}
        for i in range(3)
    ]
    requests = "\n".join(json.dumps(request) for request in sent)
    stream = grpcurl("-d", requests, "mystocks.v1.RealTimeService/StreamMarketData")
    assert '"accepted"' in stream
    assert '"GRPCURL"' in stream
    ask = json.dumps({"symbols": ["GRPCURL", "NEVER.SENT"], "names": ["sma_20"]})
    for _ in range(100):
        answer = json.loads(grpcurl("-d", ask, "mystocks.v1.RealTimeService/GetFeatures"))
        if answer["features"].get("prices") == [12]:
            break
    assert answer["features"]["symbols"] == ["GRPCURL"]
    assert answer["features"]["prices"] == [12]
    # Which of the two depends on grpcurl's version.
    unknown = answer.get("unknown_symbols", answer.get("unknownSymbols"))
    assert unknown == ["NEVER.SENT"]


def test_refusal_shows_code_and_field(grpcurl):
    ask = json.dumps({"features": ["smma_20"], "rows": {"close": [1.0]}})
    # grpcurl exits with 64 plus the code of gRPC.
    shown = grpcurl("-d", ask, "mystocks.v1.RealTimeService/ComputeFeatures", code=64 + 3)
    assert "InvalidArgument" in shown
    assert "features" in shown
