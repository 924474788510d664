"""The client library: send ticks, read features. Needs only the base installation."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mystocks.sdk.errors import DeliveryError, RowGapError
    from mystocks.sdk.position import Position
    from mystocks.sdk.producer import TickProducer
    from mystocks.sdk.rows import FeatureBlock, FeatureRow
    from mystocks.sdk.subscriber import FeatureSubscriber
    from mystocks.sdk.tick import Tick

_HOME = {
    "DeliveryError": "errors",
    "FeatureBlock": "rows",
    "FeatureRow": "rows",
    "FeatureSubscriber": "subscriber",
    "Position": "position",
    "RowGapError": "errors",
    "Tick": "tick",
    "TickProducer": "producer",
}

__all__ = [
    "DeliveryError",
    "FeatureBlock",
    "FeatureRow",
    "FeatureSubscriber",
    "Position",
    "RowGapError",
    "Tick",
    "TickProducer",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
