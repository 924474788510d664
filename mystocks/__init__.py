"""MyStocks Streams: one computation of features, the same live, on replay and in a backtest.

The names below are loaded on first use, so importing any package of the project first works and
costs little::

    from mystocks import Client

    with Client() as client, client.stream() as stream:
        stream.send("AAPL", 1_362_171_600_000_000_000, 430.47, size=100)
        stream.close()
        for row in stream:
            print(row.symbol, row.event_time_ns, row.values["rsi_14"])
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mystocks.sdk import (
        AsyncClient,
        Client,
        FeatureFrame,
        FeatureRow,
        FeatureSubscriber,
        Tick,
        TickProducer,
        TickRefused,
    )

    __version__: str

__all__ = [
    "AsyncClient",
    "Client",
    "FeatureFrame",
    "FeatureRow",
    "FeatureSubscriber",
    "Tick",
    "TickProducer",
    "TickRefused",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("mystocks-streams")
    if name in __all__:
        from mystocks import sdk

        return getattr(sdk, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
