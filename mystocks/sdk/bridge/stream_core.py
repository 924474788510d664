"""A stream of ticks and rows, as it runs in an event loop; its users are the two public forms."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

import grpc

from mystocks.sdk.bridge.change_signal import Signal
from mystocks.sdk.bridge.channel import Bridge
from mystocks.sdk.bridge.feature_position import position_of
from mystocks.sdk.bridge.rpc_errors import interruption, is_passing, to_error
from mystocks.sdk.bridge.stream_options import StreamOptions
from mystocks.sdk.bridge.tick_buffer import BATCH_TICKS, TickBuffer, tick_at
from mystocks.sdk.bridge.tick_ledger import TickLedger
from mystocks.sdk.encoding import Columns
from mystocks.sdk.errors import DeliveryError, StreamInterruptedError
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow
from mystocks.v1.market_pb2 import ResumeToken
from mystocks.v1.realtime_pb2 import MarketDataRequest, MarketDataResponse, NoRows
from schemas.errors import InvalidInputError, MyStocksError
from schemas.ticks.encode import encode_batch

Call = grpc.aio.StreamStreamCall[MarketDataRequest, MarketDataResponse]

# Encoded rows that may wait here for the program; then nothing more is read from the bridge.
MAX_UNREAD_BYTES = 64 * 1024**2


class StreamCore:
    """One call of `StreamMarketData`.

    The coroutines run in the event loop that called `open`; `buffer`, `take_row` and `take_frame`
    are for the program's thread.

    Args:
        bridge: The connection.
        options: What to receive, and how.

    Attributes:
        buffer: Ticks that wait for the stream.
        ledger: What became of those that were sent.
    """

    def __init__(self, bridge: Bridge, options: StreamOptions) -> None:
        self._bridge = bridge
        self._options = options
        self._where = bridge.where("StreamMarketData")
        self.buffer = TickBuffer(self._wake)
        self.ledger = TickLedger()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: Call | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._to_send = asyncio.Event()
        self._changed = Signal()
        self._frames: deque[tuple[FeatureFrame, int]] = deque()
        self._rows: Iterator[FeatureRow] = iter(())
        # Two counts, so that each has one thread that writes it.
        self._received_bytes = self._taken_bytes = 0
        self._wants_rows = options.rows
        self._resume: ResumeToken | None = None
        self._set = options.set
        self._ended = False
        self._error: Exception | None = None

    @property
    def position(self) -> str:
        """Where a subscription would go on; empty where the bridge has not told yet."""
        return "" if self._resume is None else str(position_of(self._resume, self._set))

    async def open(self) -> None:
        """Opens the stream.

        Raises:
            UnavailableError: No bridge answers.
        """
        self._loop = asyncio.get_running_loop()
        stub = await self._bridge.connect()
        self._call = stub.StreamMarketData()
        self._tasks = [
            asyncio.create_task(self._write(self._call)),
            asyncio.create_task(self._read(self._call)),
        ]

    def check_open(self) -> None:
        """Raises if `open` was not called.

        Raises:
            InvalidInputError: That is so.
        """
        if self._call is None:
            raise InvalidInputError("expected an open stream, was not; use it in a `with` block")

    def take_row(self) -> FeatureRow | None:
        """A row that has been received; None where there is none."""
        row = next(self._rows, None)
        if row is None and (frame := self.take_frame()) is not None:
            self._rows = iter(frame)
            row = next(self._rows, None)
        return row

    def take_frame(self) -> FeatureFrame | None:
        """A frame that has been received, never empty; None where there is none."""
        if not self._frames:
            return None
        frame, size = self._frames.popleft()
        self._taken_bytes += size
        return frame

    async def receive(self) -> bool:
        """Waits for rows; False when none came in time or the stream has ended.

        Raises:
            MyStocksError: The stream was cut, and all rows received before were taken.
        """
        self.check_open()
        self._changed.fire()
        await self._changed.wait_for(
            lambda: bool(self._frames) or self._ended, self._options.timeout_s
        )
        if not self._frames and self._error is not None:
            raise self._error.with_traceback(None)
        return bool(self._frames)

    async def wait_for_room(self) -> None:
        """Waits until the buffer may take more.

        Raises:
            InvalidInputError: Nothing moves, because rows are not read.
        """
        room = self.buffer.has_room
        while not await self._changed.wait_for(room, self._bridge.timeout_s):
            self.check_reading()

    def check_reading(self) -> None:
        """Raises if received rows are not taken, so that nothing more is read.

        Raises:
            InvalidInputError: That is so.
        """
        if self._is_paused():
            raise InvalidInputError(
                "expected rows to be read while ticks are sent, was "
                f"{len(self._frames)} unread blocks (stream); iterate in another task or thread, "
                "or open the stream with rows=False"
            )

    async def flush(self, timeout_s: float | None) -> None:
        """Waits until every tick is acknowledged or refused.

        Raises:
            DeliveryError: Some were neither in time.
            MyStocksError: The stream was cut.
        """
        self.check_open()
        wait = self._bridge.timeout_s if timeout_s is None else timeout_s
        await self._changed.wait_for(lambda: self._is_settled() or self._ended, wait)
        if self._error is not None:
            raise self._error.with_traceback(None)
        if self._is_settled():
            return
        self.check_reading()
        raise DeliveryError(
            f"expected all {self.buffer.sent} ticks to be acknowledged within {wait:g} s, was "
            f"{self.ledger.acknowledged} ({self._where}); look at the bridge and the broker",
            failed=self.ledger.refused,
            delivered=self.ledger.acknowledged,
        )

    async def leave(self, *, flush: bool) -> None:
        """Ends the stream; rows that were not taken are dropped.

        Args:
            flush: Whether to wait until every tick is acknowledged.

        Raises:
            MyStocksError: As `flush`.
        """
        self.buffer.close()
        self._wants_rows = False
        self._changed.fire()
        try:
            if flush and self._call is not None:
                await self.flush(None)
        finally:
            if self._call is not None:
                self._call.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _wake(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._to_send.set)

    def _is_settled(self) -> bool:
        return not self.buffer.waiting and self.ledger.is_settled

    def _is_paused(self) -> bool:
        unread = self._received_bytes - self._taken_bytes
        return self._wants_rows and unread >= MAX_UNREAD_BYTES

    async def _write(self, call: Call) -> None:
        linger_s = self._options.linger_ms / 1000
        try:
            if not self._options.rows:
                await call.write(MarketDataRequest(no_rows=NoRows()))
            elif self._options.select is not None:
                await call.write(MarketDataRequest(select=self._options.select))
            number = 0
            while not (self.buffer.is_closed and not self.buffer.waiting):
                await self._to_send.wait()
                self._to_send.clear()
                if self.buffer.waiting < BATCH_TICKS and not self.buffer.is_closed:
                    await asyncio.sleep(linger_s)
                while (columns := self.buffer.take()) is not None:
                    number += 1
                    request = _request(number, columns)
                    self.ledger.add(number, columns)
                    await call.write(request)
                    self._changed.fire()
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended; the reader learns why
        except Exception as error:
            call.cancel()
            self._end(error)

    async def _read(self, call: Call) -> None:
        try:
            while isinstance(response := await call.read(), MarketDataResponse):
                self._accept(response)
                self._changed.fire()
                if self._is_paused():
                    await self._changed.wait_for(lambda: not self._is_paused())
            self._end(self._ending(None))
        except grpc.aio.AioRpcError as error:
            self._end(self._ending(error))
        except Exception as error:
            call.cancel()
            self._end(error)

    def _accept(self, response: MarketDataResponse) -> None:
        if response.HasField("acknowledgements"):
            self.ledger.apply(response.acknowledgements)
        if response.HasField("resume"):
            self._resume = response.resume
        for block in response.blocks if self._wants_rows else ():
            # Without a choice the bridge's own set comes back, whatever its name is.
            self._set = block.feature_set or self._set
            frame = FeatureFrame(block, self._options.features)
            if len(frame):
                size = block.ByteSize()
                self._received_bytes += size
                self._frames.append((frame, size))

    def _ending(self, error: grpc.aio.AioRpcError | None) -> MyStocksError | None:
        """What the end of the call means; None where all is done."""
        if error is None:
            if self.buffer.is_closed and self._is_settled():
                return None
            message = f"expected the stream to stay open, was ended by the bridge ({self._where})"
        else:
            detail = interruption(error)
            if detail is not None and detail.HasField("resume"):
                self._resume = detail.resume
            exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if detail is None and (exhausted or not is_passing(error)):
                return to_error(error, self._where)
            message = str(to_error(error, self._where))
        batches = [*self.ledger.unsettled(), *self.buffer.drain()]
        ticks = [tick_at(columns, i) for columns in batches for i in range(len(columns[0] or ()))]
        return StreamInterruptedError(
            f"{message}; not known to be in the log: {len(ticks)} of {self.buffer.sent} ticks",
            ticks,
            self.position,
        )

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self.buffer.fail(
                error or InvalidInputError("expected an open stream, was closed; open another one")
            )
            self._changed.fire()


def _request(number: int, columns: Columns) -> MarketDataRequest:
    symbols, times, prices, sizes, bids, asks, sequences, volumes, amounts = columns
    assert symbols is not None
    assert times is not None
    assert prices is not None
    request = MarketDataRequest(number=number)
    request.batch.ParseFromString(
        encode_batch(
            symbols,
            times,
            prices,
            sizes,
            bids=bids,
            asks=asks,
            sequences=sequences,
            volumes=volumes,
            amounts=amounts,
        )
    )
    return request
