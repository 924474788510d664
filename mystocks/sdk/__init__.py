"""The client library: send ticks, read and compute features. Needs only the base installation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mystocks.sdk.async_client import AsyncClient
    from mystocks.sdk.bar_frame import BarFrame, BarRow
    from mystocks.sdk.bridge.blocking_market_stream import MarketStream
    from mystocks.sdk.bridge.blocking_subscription import Subscription
    from mystocks.sdk.bridge.market_stream import AsyncMarketStream
    from mystocks.sdk.bridge.statistics import BridgeStats
    from mystocks.sdk.bridge.subscription import AsyncSubscription
    from mystocks.sdk.bridge.tick_ledger import TickRefused
    from mystocks.sdk.client import Client
    from mystocks.sdk.errors import (
        BridgeError,
        DeliveryError,
        InvalidRequestError,
        MissingLibraryError,
        NotFoundError,
        OverloadedError,
        PreconditionError,
        RowGapError,
        StreamInterruptedError,
    )
    from mystocks.sdk.frame import FeatureFrame
    from mystocks.sdk.position import Position
    from mystocks.sdk.producer import TickProducer
    from mystocks.sdk.rows import FeatureBlock, FeatureRow
    from mystocks.sdk.subscriber import FeatureSubscriber
    from mystocks.sdk.tick import Tick

_HOME = {
    "AsyncClient": "async_client",
    "AsyncMarketStream": "bridge.market_stream",
    "AsyncSubscription": "bridge.subscription",
    "BarFrame": "bar_frame",
    "BarRow": "bar_frame",
    "BridgeError": "errors",
    "BridgeStats": "bridge.statistics",
    "Client": "client",
    "DeliveryError": "errors",
    "FeatureBlock": "rows",
    "FeatureFrame": "frame",
    "FeatureRow": "rows",
    "FeatureSubscriber": "subscriber",
    "InvalidRequestError": "errors",
    "MarketStream": "bridge.blocking_market_stream",
    "MissingLibraryError": "errors",
    "NotFoundError": "errors",
    "OverloadedError": "errors",
    "Position": "position",
    "PreconditionError": "errors",
    "RowGapError": "errors",
    "StreamInterruptedError": "errors",
    "Subscription": "bridge.blocking_subscription",
    "Tick": "tick",
    "TickProducer": "producer",
    "TickRefused": "bridge.tick_ledger",
}

__all__ = [
    "AsyncClient",
    "AsyncMarketStream",
    "AsyncSubscription",
    "BarFrame",
    "BarRow",
    "BridgeError",
    "BridgeStats",
    "Client",
    "DeliveryError",
    "FeatureBlock",
    "FeatureFrame",
    "FeatureRow",
    "FeatureSubscriber",
    "InvalidRequestError",
    "MarketStream",
    "MissingLibraryError",
    "NotFoundError",
    "OverloadedError",
    "Position",
    "PreconditionError",
    "RowGapError",
    "StreamInterruptedError",
    "Subscription",
    "Tick",
    "TickProducer",
    "TickRefused",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
