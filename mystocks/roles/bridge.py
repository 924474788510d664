"""The `bridge` role: clients of gRPC on one side, topics on the other.

    StreamMarketData   ticks    -> market.ticks
                       rows     <- features.<set>
    SubscribeFeatures  rows     <- features.<set>
    ComputeFeatures    request  -> compute.requests -> role compute -> compute.replies
    GetFeatures        rows     <- Redis table

It computes nothing. Start more processes for more clients: on one port with
MYSTOCKS_GRPC__REUSE_PORT=true, or each on its own.
"""

import asyncio
import gc

from grpc_bridge.metrics import BridgeMetrics
from grpc_bridge.server import BridgeServer
from mystocks.roles.process import RoleProcess
from schemas.settings import Settings
from schemas.topics import topic_specs
from streams.kafka.admin import await_topics

# A stack that is being started creates the topics after the roles were launched.
_TOPICS_TIMEOUT_S = 30.0


def run(settings: Settings, process: RoleProcess) -> None:
    """Runs until the process is told to stop.

    Args:
        settings: Of which `grpc` says where to listen.
        process: Signals, readiness, metrics.
    """
    names = [spec.name for spec in topic_specs(settings, frozenset({"features", "compute"}))]
    await_topics(settings, names, _TOPICS_TIMEOUT_S)
    asyncio.run(_serve(settings, process))


async def _serve(settings: Settings, process: RoleProcess) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(stopping.set)

    process.on_stop(stop)
    server = BridgeServer(settings, BridgeMetrics(process.metrics.registry))
    try:
        address = await server.start()
        # What is there now stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        process.ready(grpc=address)
        await stopping.wait()
    finally:
        await server.stop()
