#!/usr/bin/env python3
"""Whether the role in this container works: ``healthcheck`` or ``healthcheck grpc``.

Without an argument the metrics must say that the role is ready (`mystocks_ready` is 1); with
``grpc`` the health service of the bridge must say that it serves. Ports come from the settings'
environment variables. Exit status 0 or 1, and one line that says why.
"""

import os
import sys
import urllib.request

TIMEOUT_S = 3.0
READY = "mystocks_ready 1.0"


def main(arguments: list[str]) -> int:
    """Checks once; returns the exit status."""
    if arguments not in ([], ["grpc"]):
        print(f"expected no argument or grpc, was {' '.join(arguments)}", file=sys.stderr)
        return 2
    try:
        problem = grpc_problem() if arguments else metrics_problem()
    except OSError as error:
        problem = f"no answer from the metrics: {error}"
    print(problem or "ready")
    return 1 if problem else 0


def metrics_problem() -> str | None:
    """What the metrics say against the role, or None."""
    url = f"http://127.0.0.1:{os.environ['MYSTOCKS_METRICS__PORT']}/metrics"
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as page:
        lines = page.read().decode().splitlines()
    return None if READY in lines else "not ready yet"


def grpc_problem() -> str | None:
    """What the health service says against the bridge, or None."""
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    address = f"127.0.0.1:{os.environ.get('MYSTOCKS_GRPC__PORT', '50051')}"
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"no answer from the bridge: {error.code().name}"
    if answer.status == HealthCheckResponse.SERVING:
        return None
    return f"the bridge says {HealthCheckResponse.ServingStatus.Name(answer.status)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
