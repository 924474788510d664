"""`SubscribeFeatures`: rows of a choice of symbols and features, as they are committed."""

from collections.abc import AsyncGenerator, Callable

from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.fanout.subscription import Subscription
from mystocks.v1.realtime_pb2 import SubscribeFeaturesRequest


async def subscribe_features(
    hub: FeatureHub,
    request: SubscribeFeaturesRequest,
    on_subscribed: Callable[[Subscription], None] = lambda _subscription: None,
) -> AsyncGenerator[bytes, None]:
    """Yields serialized responses; whoever stops before their end closes the generator.

    Args:
        hub: Of this process.
        request: What to read, and from where.
        on_subscribed: Called once the subscription stands; its figures (`rows_sent`,
            `queued_bytes`, `lag_rows`) may be read at any time afterwards.

    Raises:
        MyStocksError: One of `grpc_bridge.fanout.errors`, or the broker does not answer.
    """
    async with hub.subscribe(request.selection, request) as subscription:
        on_subscribed(subscription)
        async for encoded in subscription:
            yield encoded
