"""Features and bars of the past from the bridge, paced by event time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import grpc

from mystocks.sdk.bar_frame import BarFrame, BarRow
from mystocks.sdk.bridge.channel import Bridge
from mystocks.sdk.bridge.loop_thread import LoopThread
from mystocks.sdk.bridge.rpc_errors import to_error
from mystocks.sdk.bridge.symbols import feature_list, symbol_list
from mystocks.sdk.errors import BridgeError
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow
from mystocks.sdk.tick import time_to_ns
from mystocks.v1.realtime_pb2 import ReplayMarketDataRequest, ReplayMarketDataResponse
from schemas.errors import InvalidInputError

Frame = TypeVar("Frame", bound=Sized)
Row = TypeVar("Row")

Call = grpc.aio.UnaryStreamCall[ReplayMarketDataRequest, ReplayMarketDataResponse]


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a replay is.

    Attributes:
        rows: Rows received.
        fraction: From 0 to 1, by offsets of the log.
    """

    rows: int = 0
    fraction: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplayKind(Generic[Frame, Row]):
    """What a replay yields.

    Attributes:
        kind: Of the responses that hold it.
        frame: Takes it from a response.
        rows: Iterates over a frame.
    """

    kind: Literal["features", "bars"]
    frame: Callable[[ReplayMarketDataResponse], Frame]
    rows: Callable[[Frame], Iterator[Row]]


FEATURES: ReplayKind[FeatureFrame, FeatureRow] = ReplayKind(
    "features", lambda response: FeatureFrame(response.features), iter
)
BARS: ReplayKind[BarFrame, BarRow] = ReplayKind(
    "bars", lambda response: BarFrame(response.bars), iter
)


def feature_replay_request(
    start: datetime,
    end: datetime | None,
    symbols: str | Iterable[str] | None,
    features: str | Iterable[str] | None,
    feature_set: str,
    speed: float | None,
    profile: str,
    *,
    cold: bool,
    run: str,
) -> ReplayMarketDataRequest:
    """Returns the message of `AsyncClient.replay`.

    Raises:
        InvalidInputError: An argument is not acceptable.
    """
    request = _request(start, end, symbols, speed, cold=cold, run=run)
    if features is None:
        request.feature_set = feature_set
    else:
        request.indicators.extend(feature_list(features, needed=True))
        request.profile = profile
    return request


def bar_replay_request(
    interval: str,
    start: datetime,
    end: datetime | None,
    symbols: str | Iterable[str] | None,
    speed: float | None,
    *,
    cold: bool,
    run: str,
) -> ReplayMarketDataRequest:
    """Returns the message of `AsyncClient.replay_bars`.

    Raises:
        InvalidInputError: An argument is not acceptable.
    """
    if not interval:
        raise InvalidInputError("expected an interval such as 1m, was none (interval); name one")
    request = _request(start, end, symbols, speed, cold=cold, run=run)
    request.bars = interval
    return request


def _request(
    start: datetime,
    end: datetime | None,
    symbols: str | Iterable[str] | None,
    speed: float | None,
    *,
    cold: bool,
    run: str,
) -> ReplayMarketDataRequest:
    """Returns what replays of all kinds have in common.

    Raises:
        InvalidInputError: An argument is not acceptable.
    """
    if speed is not None and not speed > 0:
        raise InvalidInputError(
            f"expected more than 0, was {speed} (speed); leave it out for as fast as possible"
        )
    request = ReplayMarketDataRequest(
        symbols=symbol_list(symbols), speed=speed or 0.0, cold=cold, run=run
    )
    request.range.start_ns = time_to_ns(start, "start")
    if end is not None:
        request.range.end_ns = time_to_ns(end, "end")
    return request


class AsyncReplay(Generic[Frame, Row]):
    """Iterates over the rows of a replay; made by `AsyncClient.replay` and `replay_bars`.

    Leaving it before its end cancels the replay, unless it has a `run`. ::

        async with client.replay(start, end, speed=60) as rows:
            async for row in rows:
                print(row.event_time_ns, row.values["sma_20"])

    Attributes:
        kind: What it yields.
        progress: How far it is.
    """

    def __init__(
        self, bridge: Bridge, request: ReplayMarketDataRequest, kind: ReplayKind[Frame, Row]
    ) -> None:
        self.progress = ReplayProgress()
        self._bridge = bridge
        self._request = request
        self.kind = kind
        self._call: Call | None = None
        self._rows: Iterator[Row] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        while True:
            for row in self._rows:
                return row
            frame = await self.next_frame()
            if frame is None:
                raise StopAsyncIteration
            self._rows = self.kind.rows(frame)

    async def blocks(self) -> AsyncIterator[Frame]:
        """Yields frames instead of rows, which is faster by far."""
        while (frame := await self.next_frame()) is not None:
            yield frame

    async def next_frame(self) -> Frame | None:
        """Returns the next rows; None after the last ones.

        Raises:
            PreconditionError: The state before the range cannot be restored.
            NotFoundError: There is no such feature set.
            InvalidRequestError: A field is not acceptable.
            UnavailableError: The bridge, or role `replay`, does not answer.
            BridgeError: The bridge does not know replays of this kind.
        """
        try:
            if self._call is None:
                self._call = (await self._bridge.connect()).ReplayMarketData(self._request)
            while True:
                response = await self._call.read()
                if not isinstance(response, ReplayMarketDataResponse):
                    return None
                kind = response.WhichOneof("kind")
                if kind == "progress":
                    self.progress = ReplayProgress(self.progress.rows, response.progress.fraction)
                elif kind == self.kind.kind:
                    frame = self.kind.frame(response)
                    rows = self.progress.rows + len(frame)
                    self.progress = ReplayProgress(rows, self.progress.fraction)
                    return frame
                else:
                    raise BridgeError(
                        f"expected {self.kind.kind} from the bridge, was {kind}; bridge and "
                        "client may be of different versions"
                    )
        except grpc.aio.AioRpcError as error:
            raise to_error(error, self._bridge.where("ReplayMarketData")) from None

    async def close(self) -> None:
        """Ends the call."""
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


class Replay(Generic[Frame, Row]):
    """Iterates over the rows of a replay; made by `Client.replay` and `replay_bars`.

    Leaving it before its end cancels the replay, unless it has a `run`. ::

        with client.replay(start, end, speed=60) as rows:
            for row in rows:
                print(row.event_time_ns, row.values["sma_20"])
    """

    def __init__(self, core: AsyncReplay[Frame, Row], thread: LoopThread) -> None:
        self._core = core
        self._thread = thread

    @property
    def progress(self) -> ReplayProgress:
        """How far it is."""
        return self._core.progress

    def __iter__(self) -> Iterator[Row]:
        for frame in self.blocks():
            yield from self._core.kind.rows(frame)

    def blocks(self) -> Iterator[Frame]:
        """Yields frames instead of rows, which is faster by far."""
        while (frame := self._thread.run(self._core.next_frame())) is not None:
            yield frame

    def close(self) -> None:
        """Ends the call."""
        self._thread.run(self._core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
