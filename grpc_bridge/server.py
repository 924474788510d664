"""The bridge as a server: all services, health, reflection."""

import asyncio
import contextlib

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from grpc_bridge.backtest import IntegratedBacktestService
from grpc_bridge.compute_features import ComputeFeatures
from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.get_features import GetFeatures
from grpc_bridge.group_progress import GroupProgress
from grpc_bridge.handlers import Service, handler_of
from grpc_bridge.jobs import IntegratedJobService
from grpc_bridge.limits import max_response_bytes
from grpc_bridge.metrics import BridgeMetrics
from grpc_bridge.ml import IntegratedMLService
from grpc_bridge.realtime import IntegratedRealTimeService
from grpc_bridge.registry import StreamRegistry
from grpc_bridge.replay_market_data import ReplayMarketData
from grpc_bridge.tick_sink import TickSink
from schemas.errors import UnavailableError
from schemas.settings import GrpcSettings, Settings

# How long open calls may take to end when the server stops.
_GRACE_S = 5.0
# A client may probe the connection as often as this.
_MIN_CLIENT_PING_MS = 5000
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - not an address to bind to


class BridgeServer:
    """Serves gRPC; call `start`, then `stop`, on one event loop.

    Args:
        settings: Of the bridge.
        metrics: Of this process.
    """

    def __init__(self, settings: Settings, metrics: BridgeMetrics) -> None:
        self._settings = settings
        self._registry = StreamRegistry(settings.grpc, metrics)
        self._hub = FeatureHub(settings)
        self._sink = TickSink(settings, metrics)
        self._progress = GroupProgress(settings)
        self._compute = ComputeFeatures(settings)
        self._get_features = GetFeatures(settings, self._hub)
        self._replay = ReplayMarketData(settings)
        services: list[Service] = [
            IntegratedRealTimeService(
                settings,
                self._registry,
                sink=self._sink,
                hub=self._hub,
                progress=self._progress,
                get_features=self._get_features,
                compute=self._compute,
                replay=self._replay,
            ),
            IntegratedBacktestService(),
            IntegratedMLService(),
            IntegratedJobService(),
        ]
        self._names = [service.descriptor.full_name for service in services]
        self._handlers = [handler_of(service, metrics) for service in services]
        self._health = health.aio.HealthServicer()
        self._watch: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> str:
        """Connects to Kafka and begins to serve.

        Returns:
            The address, ``host:port``.

        Raises:
            UnavailableError: No broker answers, a topic is missing, or the port is taken.
        """
        await self._sink.start()
        await self._progress.start()
        await self._hub.start()
        await self._compute.start()
        server = grpc.aio.server(options=_options(self._settings.grpc))
        server.add_generic_rpc_handlers(tuple(self._handlers))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        port = _bind(server, self._settings.grpc)
        await server.start()
        self._server = server
        self._watch = asyncio.create_task(self._registry.watch())
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        host = _WILDCARDS.get(self._settings.grpc.host, self._settings.grpc.host)
        return f"{_bracketed(host)}:{port}"

    async def stop(self) -> None:
        """Ends open streams with what they need to go on, finishes calls, and disconnects."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            self._registry.close()
            await self._server.stop(_GRACE_S)
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await self._sink.close()
        await self._compute.close()
        await self._hub.close()
        await self._progress.close()
        await self._get_features.close()
        await asyncio.get_running_loop().run_in_executor(None, self._replay.close)


def _options(settings: GrpcSettings) -> list[tuple[str, int]]:
    keepalive_ms = int(settings.keepalive_s * 1000)
    return [
        ("grpc.so_reuseport", int(settings.reuse_port)),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", max_response_bytes(settings)),
        # A client that vanished without closing its connection is noticed after both.
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _MIN_CLIENT_PING_MS),
    ]


def _bind(server: grpc.aio.Server, settings: GrpcSettings) -> int:
    address = f"{_bracketed(settings.host)}:{settings.port}"
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise UnavailableError(
            f"expected to listen on {address}, could not ({error}); stop what uses the port, or "
            "set MYSTOCKS_GRPC__HOST and MYSTOCKS_GRPC__PORT (0 takes a free one)"
        ) from error
    return int(port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
