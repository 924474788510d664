"""The client of the gRPC bridge: the asynchronous form."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from mystocks.sdk.bar_frame import BarFrame, BarRow
from mystocks.sdk.bridge.channel import Bridge
from mystocks.sdk.bridge.feature_position import Start
from mystocks.sdk.bridge.market_stream import AsyncMarketStream
from mystocks.sdk.bridge.ohlcv import ohlcv_rows
from mystocks.sdk.bridge.replay import (
    BARS,
    FEATURES,
    AsyncReplay,
    bar_replay_request,
    feature_replay_request,
)
from mystocks.sdk.bridge.statistics import BridgeStats, bridge_stats
from mystocks.sdk.bridge.stream_core import StreamCore
from mystocks.sdk.bridge.stream_options import StreamOptions, stream_options
from mystocks.sdk.bridge.subscription import AsyncSubscription, Policy, selection
from mystocks.sdk.bridge.symbols import feature_list, symbol_list
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow
from mystocks.sdk.tick import time_to_ns
from mystocks.v1.realtime_pb2 import (
    ComputeFeaturesRequest,
    GetFeaturesRequest,
    GetStreamStatsRequest,
)
from schemas.errors import InvalidInputError
from schemas.settings import Settings


class AsyncClient:
    """Talks to a gRPC bridge: sends ticks, reads and computes features.

    Use one for everything; it holds one connection, which is made on first use and again whenever
    it is lost. Calls that change nothing are tried again with growing delays, until `timeout_s`.
    ::

        async with AsyncClient() as client:
            print(await client.latest("AAPL"))

    Args:
        address: ``host:port``; None takes MYSTOCKS_GRPC__ADDRESS, else the bridge of the stack
            that `mystocks up` keeps running.
        timeout_s: Longest time for a call with all its attempts, and for connecting.
        settings: Settings to use; None loads them from the environment.

    Raises:
        ConfigurationError: No bridge is known, or the environment holds a setting that is not
            acceptable.
        InvalidInputError: An argument is not acceptable.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout_s: float = 10.0,
        settings: Settings | None = None,
    ) -> None:
        self._bridge = Bridge(address, timeout_s, settings)

    @property
    def address(self) -> str:
        """``host:port`` of the bridge."""
        return self._bridge.address

    async def latest(
        self,
        symbols: str | Iterable[str] | None = None,
        *,
        set: str = "",  # noqa: A002 - the field's own word
        features: str | Iterable[str] | None = None,
    ) -> FeatureFrame:
        """Returns the latest row of each symbol.

        Args:
            symbols: Symbols of interest; None for all. `FeatureFrame.unknown_symbols` names those
                that have no features so far.
            set: Name of the feature set; empty is the bridge's own.
            features: Features of interest, as columns are named; None for all.

        Raises:
            InvalidInputError: An argument is not acceptable.
            UnavailableError: The bridge does not answer in time.
        """
        request = GetFeaturesRequest(
            feature_set=set, symbols=symbol_list(symbols), names=feature_list(features)
        )
        response = await self._bridge.call(
            "GetFeatures", lambda stub, left_s: stub.GetFeatures(request, timeout=left_s)
        )
        return FeatureFrame(response.features, unknown_symbols=response.unknown_symbols)

    async def compute(
        self,
        features: str | Iterable[str],
        data: Any = None,
        *,
        symbol: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        last: int = 0,
        profile: Literal["talib", "cn"] = "talib",
    ) -> FeatureFrame:
        """Computes features over rows of yours, or over a symbol's ticks in the log.

        Args:
            features: For example ``["sma_20", "macd_5_35_5"]``.
            data: Rows of one symbol, oldest first: a table, data frame or mapping with the column
                ``close`` and optionally ``open, high, low, volume, event_time``. None computes
                over the log.
            symbol: Needed where `data` is None.
            start: Return rows from this event time on; earlier ones are computed as well, since
                indicators remember.
            end: Return rows before this event time.
            last: Return only the newest so many rows; 0 returns all.
            profile: Conventions: TA-Lib's or those of Chinese terminals.

        Raises:
            InvalidInputError: An argument is not acceptable; for an unknown feature the message
                lists those there are.
            NotFoundError: The log has no ticks of `symbol`.
            OverloadedError: The range has more ticks than the bridge's operator allows.
            PreconditionError: There are too few rows.
            UnavailableError: There is no answer in time.
        """
        request = ComputeFeaturesRequest(
            features=feature_list(features, needed=True), profile=profile, last=_natural(last)
        )
        if symbol is not None:
            request.symbol = symbol_list(symbol)[0]
        elif data is None:
            raise InvalidInputError(
                "expected data or a symbol, was neither (data); pass rows, or symbol= to compute "
                "over the log"
            )
        if data is not None:
            request.rows.CopyFrom(ohlcv_rows(data))
        if start is not None:
            request.range.start_ns = time_to_ns(start, "start")
        if end is not None:
            request.range.end_ns = time_to_ns(end, "end")
        response = await self._bridge.call(
            "ComputeFeatures", lambda stub, left_s: stub.ComputeFeatures(request, timeout=left_s)
        )
        return FeatureFrame(response.features)

    def subscribe(
        self,
        symbols: str | Iterable[str] | None = None,
        *,
        features: str | Iterable[str] | None = None,
        set: str = "",  # noqa: A002 - the field's own word
        start: Start = "latest",
        policy: Policy = "every_row",
        limit: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncSubscription:
        """Returns an iterator over feature rows as they are committed.

        It stands once ``async with`` is entered, or the iteration begun.

        Args:
            symbols: Symbols of interest; None for all.
            features: Features of interest, as columns are named; None for all.
            set: Name of the feature set; empty is the bridge's own.
            start: ``"latest"`` (rows committed from now on), ``"earliest"``, an aware datetime
                (rows with that event time or a newer one), a position or its text, or a mapping
                of partition to the last row already processed.
            policy: ``"every_row"``, or ``"latest"``: a reader that is behind gets only the newest
                row of each symbol.
            limit: The iteration ends after this many rows.
            timeout_s: The iteration ends when no row came for this long; None waits for ever. The
                next iteration goes on from there.

        Raises:
            InvalidInputError: An argument is not acceptable.
        """
        choice = selection(set, symbol_list(symbols), feature_list(features), policy)
        return AsyncSubscription(self._bridge, choice, start, limit, timeout_s)

    def replay(
        self,
        start: datetime,
        end: datetime | None = None,
        symbols: str | Iterable[str] | None = None,
        *,
        set: str = "ticks",  # noqa: A002 - the field's own word
        features: str | Iterable[str] | None = None,
        profile: Literal["talib", "cn"] = "talib",
        speed: float | None = None,
        cold: bool = False,
        run: str = "",
    ) -> AsyncReplay[FeatureFrame, FeatureRow]:
        """Returns an iterator over the features of the past, computed again as live had them.

        Args:
            start: Event time of the first row, aware.
            end: Event time before which the last one is; None is the end of the log.
            symbols: Symbols of interest; None for all.
            set: Name of the live feature set to replay.
            features: Other features, such as ``["sma_3"]``, computed from the beginning of the log
                instead of those of `set`.
            profile: Conventions of `features`.
            speed: Event time per wall-clock time; None is as fast as possible.
            cold: Begin with empty state at `start`.
            run: Keeps the replay and its output topic under this name; a later call with the same
                arguments reads it again.

        Raises:
            InvalidInputError: An argument is not acceptable.
        """
        request = feature_replay_request(
            start, end, symbols, features, set, speed, profile, cold=cold, run=run
        )
        return AsyncReplay(self._bridge, request, FEATURES)

    def replay_bars(
        self,
        interval: str,
        start: datetime,
        end: datetime | None = None,
        symbols: str | Iterable[str] | None = None,
        *,
        speed: float | None = None,
        cold: bool = False,
        run: str = "",
    ) -> AsyncReplay[BarFrame, BarRow]:
        """Returns an iterator over the bars of the past, in live's last revision.

        Args:
            interval: Length of the bars, for example ``1m``.
            start: A bar belongs to the range by its end, which is at this time or later; aware.
            end: Time before which bars end; None is the end of the log.
            symbols: Symbols of interest; None for all.
            speed: Event time per wall-clock time; None is as fast as possible.
            cold: Begin with empty state at `start`.
            run: Keeps the replay and its output topic under this name; a later call with the same
                arguments reads it again.

        Raises:
            InvalidInputError: An argument is not acceptable.
        """
        request = bar_replay_request(interval, start, end, symbols, speed, cold=cold, run=run)
        return AsyncReplay(self._bridge, request, BARS)

    def stream(
        self,
        symbols: str | Iterable[str] | None = None,
        *,
        features: str | Iterable[str] | None = None,
        set: str = "",  # noqa: A002 - the field's own word
        policy: Policy = "every_row",
        rows: bool = True,
        check: bool = True,
        linger_ms: float = 1.0,
        timeout_s: float | None = None,
    ) -> AsyncMarketStream:
        """Returns a stream that sends ticks and receives rows; use it with ``async with``.

        Args:
            symbols: Symbols to receive rows of; None for those that are sent.
            features: Features of interest, as columns are named; None for all.
            set: Name of the feature set; empty is the bridge's own.
            policy: As for `subscribe`, where `symbols` are given.
            rows: False receives no rows, for programs that only send.
            check: False leaves the check of ticks to the bridge: `send` raises nothing then, and
                bad ticks appear in `refused`.
            linger_ms: How long a tick waits for others to travel with, 0 to 1000.
            timeout_s: The iteration ends when no row came for this long; None waits for ever. The
                next iteration goes on from there.

        Raises:
            InvalidInputError: An argument is not acceptable.
        """
        options = stream_options(
            symbols,
            features,
            set,
            policy,
            rows=rows,
            check=check,
            linger_ms=linger_ms,
            timeout_s=timeout_s,
        )
        return AsyncMarketStream(self.stream_core(options), options)

    def stream_core(self, options: StreamOptions) -> StreamCore:
        """Returns the inner part of a stream, which both forms of the client share."""
        return StreamCore(self._bridge, options)

    async def stats(self, *, set: str = "") -> BridgeStats:  # noqa: A002 - the field's own word
        """Returns the open streams of the bridge and how far a feature set has come.

        Args:
            set: Name of the feature set; empty is the bridge's own.

        Raises:
            UnavailableError: The bridge does not answer in time.
        """
        request = GetStreamStatsRequest(feature_set=set)
        response = await self._bridge.call(
            "GetStreamStats", lambda stub, left_s: stub.GetStreamStats(request, timeout=left_s)
        )
        return bridge_stats(response)

    async def close(self) -> None:
        """Ends all calls and the connection."""
        await self._bridge.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _natural(last: int) -> int:
    if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last < 2**32:
        raise InvalidInputError(f"expected 0 or more, was {last!r:.80} (last); correct it")
    return last
