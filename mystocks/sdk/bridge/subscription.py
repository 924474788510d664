"""Feature rows from the bridge, as they are committed: the asynchronous form."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

import grpc

from mystocks.sdk.bridge.channel import Bridge
from mystocks.sdk.bridge.cursor import Cursor
from mystocks.sdk.bridge.feature_position import Start, set_start
from mystocks.sdk.bridge.retry import Backoff
from mystocks.sdk.bridge.rpc_errors import is_passing, retry_after_s, to_subscription_error
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow
from mystocks.sdk.tick import time_to_ns
from mystocks.v1.realtime_pb2 import (
    FeatureSelection,
    SlowReaderPolicy,
    SubscribeFeaturesRequest,
    SubscribeFeaturesResponse,
)
from schemas.errors import InvalidInputError, MyStocksError, UnavailableError

Policy = Literal["every_row", "latest"]
Call = grpc.aio.UnaryStreamCall[SubscribeFeaturesRequest, SubscribeFeaturesResponse]

_POLICIES = {
    "every_row": SlowReaderPolicy.SLOW_READER_POLICY_EVERY_ROW,
    "latest": SlowReaderPolicy.SLOW_READER_POLICY_LATEST,
}
# How long a subscription that stood tries to come back: a bridge is restarted within this time.
_RECONNECT_S = 60.0


def selection(
    feature_set: str, symbols: list[str], features: list[str], policy: str
) -> FeatureSelection:
    """Returns the message that says what to receive.

    Raises:
        InvalidInputError: There is no such policy.
    """
    if policy not in _POLICIES:
        raise InvalidInputError(
            f"expected one of {', '.join(_POLICIES)}, was {policy!r:.80} (policy); correct it"
        )
    return FeatureSelection(
        feature_set=feature_set, symbols=symbols, names=features, policy=_POLICIES[policy]
    )


class AsyncSubscription:
    """Iterates over the rows of a feature set as they are committed, across reconnections.

    Made by `AsyncClient.subscribe`. With the policy ``every_row`` each row identity (partition,
    row) comes exactly once, also when connections are cut or the bridge is restarted; with
    ``latest`` a reader that is behind gets the newest row of each symbol.

    ::

        async with client.subscribe("AAPL", start="earliest") as rows:
            async for row in rows:
                print(row.event_time_ns, row.price, row.values["sma_20"])
    """

    def __init__(
        self,
        bridge: Bridge,
        choice: FeatureSelection,
        start: Start,
        limit: int | None,
        timeout_s: float | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidInputError(f"expected at least 1, was {limit} (limit); correct it")
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidInputError(
                f"expected more than 0, was {timeout_s} (timeout_s); correct it"
            )
        self._bridge = bridge
        self._request = SubscribeFeaturesRequest(selection=choice)
        position = set_start(self._request, start)
        self._cursor = Cursor(
            self._request.selection.feature_set,
            position,
            time_to_ns(start) if isinstance(start, datetime) else None,
            every_row=choice.policy == SlowReaderPolicy.SLOW_READER_POLICY_EVERY_ROW,
            whole=not choice.symbols,
        )
        self._limit = limit
        self._timeout_s = timeout_s
        self._count = 0
        self._call: Call | None = None
        self._incoming: asyncio.Task[SubscribeFeaturesResponse] | None = None
        self._backoff = Backoff(bridge.timeout_s)
        self._opened = False
        self._closed = False
        self._reconnections = 0

    @property
    def position(self) -> str:
        """Resume token: all rows up to the one last yielded (for `blocks`: frame) are done.

        Keep it, and give it as `start` to go on at exactly the next row, also in another process
        and also to `FeatureSubscriber`. Empty until the subscription stands.
        """
        return str(self._cursor.position) if self._cursor.started else ""

    @property
    def reconnections(self) -> int:
        """How often the stream was opened again after it had stood."""
        return self._reconnections

    async def open(self) -> Self:
        """Returns when the subscription stands: rows committed from now on are not missed.

        Raises:
            MyStocksError: The bridge does not answer within the client's time-out, or refuses.
        """
        if not self._opened:
            self._cursor.accept(await self._next_response())
            self._opened = True
            self._backoff = Backoff(_RECONNECT_S)
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeatureRow:
        row = self.take_row()
        while row is None:
            if self.is_complete or not await self.receive():
                raise StopAsyncIteration
            row = self.take_row()
        return row

    async def blocks(self) -> AsyncIterator[FeatureFrame]:
        """Yields frames instead of rows, which is faster by far.

        `limit` counts rows here too. The boundaries of frames mean nothing.
        """
        while not self.is_complete:
            frame = self.take_frame()
            if frame is not None:
                yield frame
            elif not await self.receive():
                return

    async def close(self) -> None:
        """Ends the subscription."""
        self._closed = True
        if self._call is not None:
            self._call.cancel()
        if self._incoming is not None:
            self._incoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._incoming

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def is_complete(self) -> bool:
        """Whether the iteration is over."""
        return self._closed or self._count == self._limit

    def take_row(self) -> FeatureRow | None:
        """A row that has been received; None where there is none, or no more is wanted."""
        row = None if self.is_complete else self._cursor.next_row()
        self._count += row is not None
        return row

    def take_frame(self) -> FeatureFrame | None:
        """A frame that has been received; None where there is none."""
        room = None if self._limit is None else self._limit - self._count
        frame = self._cursor.next_frame(room)
        self._count += 0 if frame is None else len(frame)
        return frame

    async def receive(self) -> bool:
        """Waits for rows; False when none came in time or the subscription was closed.

        Raises:
            MyStocksError: The subscription cannot go on.
        """
        if not self._closed:
            await self.open()
        deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not self._closed and not self._cursor.has_rows:
            if self._incoming is None:
                self._incoming = asyncio.create_task(self._next_response())
            # The task outlives this call: cancelling a read would end the stream.
            wait = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait({self._incoming}, timeout=wait)
            if not done:
                return False
            task, self._incoming = self._incoming, None
            if task.cancelled():
                return False
            self._cursor.accept(task.result())
        return self._cursor.has_rows

    async def _next_response(self) -> SubscribeFeaturesResponse:
        """The next response, over as many connections as it takes."""
        where = self._bridge.where("SubscribeFeatures")
        while True:
            try:
                if self._call is None:
                    self._call = await self._start_call()
                response = await self._call.read()
                if isinstance(response, SubscribeFeaturesResponse):
                    self._backoff.succeeded()
                    return response
                # A subscription has no end of its own: the server is going away.
                problem: MyStocksError = UnavailableError(
                    f"expected the stream to go on, was ended by the bridge ({where})"
                )
                final, asked = False, None
            except grpc.aio.AioRpcError as error:
                problem, final = to_subscription_error(error, where), not is_passing(error)
                asked = retry_after_s(error)
            self._call = None
            delay = None if final else self._backoff.failed(asked)
            if delay is None:
                raise problem
            await asyncio.sleep(delay)

    async def _start_call(self) -> Call:
        stub = await self._bridge.connect(None if not self._opened else _RECONNECT_S)
        if self._cursor.started:
            self._request.resume.CopyFrom(self._cursor.token)
        self._reconnections += self._opened
        return stub.SubscribeFeatures(self._request)
