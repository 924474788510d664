"""`RealTimeService`: ticks in, features out."""

import contextlib
from collections.abc import Mapping

from grpc_bridge.compute_features import ComputeFeatures
from grpc_bridge.errors import Context
from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.fanout.subscription import Subscription
from grpc_bridge.get_features import GetFeatures
from grpc_bridge.group_progress import GroupProgress
from grpc_bridge.handlers import Duplex, Method, ServerStream, Unary
from grpc_bridge.market_stream import MarketStream
from grpc_bridge.registry import StreamRegistry
from grpc_bridge.replay_market_data import ReplayMarketData
from grpc_bridge.stream_stats import stream_stats
from grpc_bridge.subscribe_features import subscribe_features
from grpc_bridge.tick_sink import TickSink
from mystocks.v1 import realtime_pb2
from schemas.settings import Settings


class IntegratedRealTimeService:
    """Each method is a record that is produced, a topic that is read, or a table that is read.

    Args:
        settings: Of the bridge.
        registry: Of the open streams.
        sink: Writes ticks.
        hub: Reads features.
        progress: Knows how far the features group is.
        get_features: Reads the table.
        compute: Asks role `compute`.
        replay: Asks role `replay`, and reads ticks of the past.
    """

    descriptor = realtime_pb2.DESCRIPTOR.services_by_name["RealTimeService"]

    def __init__(
        self,
        settings: Settings,
        registry: StreamRegistry,
        *,
        sink: TickSink,
        hub: FeatureHub,
        progress: GroupProgress,
        get_features: GetFeatures,
        compute: ComputeFeatures,
        replay: ReplayMarketData,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._sink = sink
        self._hub = hub
        self._progress = progress
        self._get_features = get_features
        self._replay = replay
        self.methods: Mapping[str, Method] = {
            "StreamMarketData": Duplex(self.stream_market_data),
            "SubscribeFeatures": ServerStream(self.subscribe_features),
            "ComputeFeatures": Unary(compute.handle, raw=True),
            "GetFeatures": Unary(self.get_features),
            "ReplayMarketData": ServerStream(self.replay_market_data),
            "GetStreamStats": Unary(self.get_stream_stats),
        }

    async def stream_market_data(self, context: Context) -> None:
        """Ticks in, acknowledgements and rows out, on one stream."""
        async with self._registry.stream(context.peer(), "StreamMarketData") as entry:
            stream = MarketStream(
                context, entry, self._sink, self._hub, self._progress, self._settings
            )
            await stream.run()

    async def subscribe_features(
        self, request: realtime_pb2.SubscribeFeaturesRequest, context: Context
    ) -> None:
        """Rows of a selection, from where the request says."""
        async with self._registry.stream(context.peer(), "SubscribeFeatures") as entry:

            def stands(subscription: Subscription) -> None:
                entry.progress = subscription

            responses = subscribe_features(self._hub, request, stands)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await context.write(response)
                    entry.touch()

    async def replay_market_data(
        self, request: realtime_pb2.ReplayMarketDataRequest, context: Context
    ) -> None:
        """Ticks or features of the past, paced by event time."""
        async with self._registry.stream(context.peer(), "ReplayMarketData") as entry:
            responses = self._replay.responses(request)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    await context.write(response)
                    entry.touch()

    async def get_features(
        self, request: realtime_pb2.GetFeaturesRequest, _context: Context
    ) -> realtime_pb2.GetFeaturesResponse:
        """The latest rows."""
        return await self._get_features.answer(request)

    async def get_stream_stats(
        self, request: realtime_pb2.GetStreamStatsRequest, _context: Context
    ) -> realtime_pb2.GetStreamStatsResponse:
        """The open streams and the group's progress."""
        return await stream_stats(
            request, self._settings, self._registry, self._progress, self._hub
        )
