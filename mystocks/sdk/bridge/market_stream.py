"""Ticks out and feature rows in on one stream: the asynchronous form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from mystocks.sdk.bridge.stream_core import StreamCore
from mystocks.sdk.bridge.stream_options import StreamOptions
from mystocks.sdk.bridge.tick_buffer import table_batches
from mystocks.sdk.bridge.tick_ledger import TickRefused
from mystocks.sdk.columns import is_columnar, tick_table
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow
from mystocks.sdk.tick import Tick, as_tick


class AsyncMarketStream:
    """Sends ticks and iterates over the feature rows that they make.

    Made by `AsyncClient.stream`. Ticks that are sent within the linger time travel together, in
    order. The bridge acknowledges what is in the log; a tick that it refuses appears in `refused`,
    and the stream goes on. ::

        async with client.stream() as stream:
            await stream.send("AAPL", datetime.now(UTC), 189.98, size=100)
            await stream.close()
            async for row in stream:
                print(row.symbol, row.values["sma_20"])

    Leaving the block without an error waits until every tick is acknowledged. A stream is not
    opened again by itself, since ticks that were not acknowledged may or may not be in the log:
    `StreamInterruptedError` names them.
    """

    def __init__(self, core: StreamCore, options: StreamOptions) -> None:
        self._core = core
        self._options = options

    @property
    def sent(self) -> int:
        """Ticks taken by `send` and `send_many` so far."""
        return self._core.buffer.sent

    @property
    def acknowledged(self) -> int:
        """Ticks that are in the log, as far as the bridge has told."""
        return self._core.ledger.acknowledged

    @property
    def acknowledged_offsets(self) -> Mapping[int, int]:
        """Largest offset acknowledged so far, by partition of the ticks' topic."""
        return dict(self._core.ledger.places)

    @property
    def refused(self) -> Sequence[TickRefused]:
        """The ticks that the bridge refused, the newest 10,000 of them."""
        return tuple(self._core.ledger.refusals)

    @property
    def position(self) -> str:
        """Where `subscribe` would go on after what was received; empty before the first answer."""
        return self._core.position

    async def send(
        self,
        symbol: str,
        event_time_ns: int | datetime,
        price: float,
        size: float = 0.0,
        *,
        bid: float | None = None,
        ask: float | None = None,
        sequence: int | None = None,
        volume: float | None = None,
        amount: float | None = None,
    ) -> None:
        """Sends one tick; returns before it is acknowledged, waits while the bridge is slower.

        Args:
            symbol: ``[A-Za-z0-9._:/^=-]{1,32}``.
            event_time_ns: Nanoseconds since 1970 in UTC, or a datetime with a time zone.
            price: Finite and above 0.
            size: Traded quantity, finite and at least 0.
            bid: Best bid.
            ask: Best ask.
            sequence: The feed's own number of this tick.
            volume: Traded quantity since the session began.
            amount: Turnover since the session began.

        Raises:
            InvalidInputError: A field is not acceptable (the message names it), the stream was
                closed, or rows are not read. Nothing was sent.
            StreamInterruptedError: The stream was cut.
        """
        values = (symbol, event_time_ns, price, size, bid, ask, sequence, volume, amount)
        await self._send(as_tick(values), self.sent)

    async def send_many(self, ticks: Any) -> int:
        """Sends many ticks; returns how many, before they are acknowledged.

        Args:
            ticks: A pyarrow table or record batch, a data frame (pandas, Polars), a mapping of
                columns, or an iterable of `Tick` or of tuples in its order. Columns are those of
                `Tick`; ``event_time_ns`` may also be a timestamp with a time zone.

        Raises:
            InvalidInputError: A field is not acceptable; the message names it and the row. Of a
                table nothing was sent, of an iterable what came before.
            StreamInterruptedError: The stream was cut.
        """
        self._core.check_open()
        count = 0
        if is_columnar(ticks):
            for columns, rows in table_batches(tick_table(ticks)):
                while not self._core.buffer.add_columns(columns, rows):
                    await self._core.wait_for_room()
                count += rows
            return count
        for values in ticks:
            await self._send(as_tick(values), count)
            count += 1
        return count

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until every tick that was sent is acknowledged or refused.

        Args:
            timeout_s: Longest wait; None takes the client's.

        Raises:
            DeliveryError: Some were neither in time.
            StreamInterruptedError: The stream was cut.
        """
        await self._core.flush(timeout_s)

    async def close(self) -> None:
        """Ends sending. The rows of what was sent still come; the iteration ends after them.

        A stream that was opened with `symbols` goes on with their rows until its block is left.
        """
        self._core.buffer.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeatureRow:
        row = self._core.take_row()
        while row is None:
            if not await self._core.receive():
                raise StopAsyncIteration
            row = self._core.take_row()
        return row

    async def blocks(self) -> AsyncIterator[FeatureFrame]:
        """Yields frames instead of rows, which is faster by far; their boundaries mean nothing."""
        while True:
            frame = self._core.take_frame()
            if frame is not None:
                yield frame
            elif not await self._core.receive():
                return

    async def __aenter__(self) -> Self:
        await self._core.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._core.leave(flush=error is None)

    async def _send(self, tick: Tick, place: int) -> None:
        self._core.check_open()
        tick = self._options.checked(tick, place)
        while not self._core.buffer.add(tick):
            await self._core.wait_for_room()
