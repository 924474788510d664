"""One open `StreamMarketData` call."""

import asyncio
import contextlib
from functools import partial

import grpc

from grpc_bridge.errors import Context, StreamInterruptedError, failure_of
from grpc_bridge.fanout.hub import FeatureHub
from grpc_bridge.fanout.subscription import Listener
from grpc_bridge.fanout.wire import frame, frames
from grpc_bridge.group_progress import GroupProgress
from grpc_bridge.market_request import parse_request
from grpc_bridge.registry import StreamEntry
from grpc_bridge.row_feed import RowFeed
from grpc_bridge.tick_sender import UNKNOWN_OFFSET, TickSender
from grpc_bridge.tick_sink import TickSink
from mystocks.v1.realtime_pb2 import FeatureSelection, NoRows, SubscribeFeaturesRequest
from schemas.errors import MyStocksError, UnavailableError
from schemas.requests import Code, RequestFailedError
from schemas.selections import MAX_SYMBOLS
from schemas.settings import Settings

# Fields of MarketDataResponse.
_ACKNOWLEDGEMENTS, _BLOCKS, _RESUME = 1, 2, 3
# A response stays well below the 4 MiB that clients accept by default.
_RESPONSE_BYTES = 512 * 1024
# How long a stream that has to end waits for what is on its way to the broker.
_SETTLE_S = 2.0
_RETRY_S = 0.5
# Acknowledgements wait so long for rows to go with, or for those of other ticks that are on their
# way: a response costs both sides more than what is in it. Where neither can come, a client may be
# waiting for this one before it sends more.
_ACKNOWLEDGEMENT_LINGER_S = 0.02
# So many do not wait.
_MANY_ACKNOWLEDGEMENTS = 1000


class MarketStream:
    """Reads requests, and writes acknowledgements and rows as they come together.

    Args:
        context: Of the call.
        entry: Of the registry.
        sink: Where ticks go.
        hub: Where rows come from.
        progress: Of the features group.
        settings: Bounds.
    """

    def __init__(
        self,
        context: Context,
        entry: StreamEntry,
        sink: TickSink,
        hub: FeatureHub,
        progress: GroupProgress,
        settings: Settings,
    ) -> None:
        self._context = context
        self._entry = entry
        self._sink = sink
        self._hub = hub
        self._progress = progress
        self._set = settings.features.name
        self._linger_s = settings.grpc.linger_ms / 1000
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._changed = asyncio.Event()
        self._sender = TickSender(entry, self._acknowledged)
        self._feed: RowFeed | None = None
        self._feed_context = contextlib.AsyncExitStack()
        self._selected = False
        self._wants_rows = True
        self._done = False
        self._failure: BaseException | None = None
        self._sent_at = 0.0
        entry.unacknowledged = lambda: self._sender.unacknowledged
        entry.ask_to_end = self._fail

    async def run(self) -> None:
        """Serves the stream until both sides are through.

        Raises:
            StreamInterruptedError: It has to end before that; what is acknowledged was sent.
        """
        reader = asyncio.create_task(self._read())
        try:
            while not (self._done and self._is_empty):
                await self._news.wait()
                await self._linger()
                self._news.clear()
                self._urgent.clear()
                await self._send()
                if (failure := self._reason_to_end()) is not None:
                    await self._end(failure)
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await self._stop_feed()

    @property
    def _is_empty(self) -> bool:
        feed = self._feed
        return not self._sender.has_news and not (feed is not None and feed.waiting)

    @property
    def _more_to_come(self) -> bool:
        """Whether rows of the ticks that are acknowledged, or further acknowledgements, follow."""
        rows_follow = self._feed is not None and not self._selected
        return rows_follow or not self._sender.idle

    def _wake(self) -> None:
        self._urgent.set()
        self._news.set()
        self._changed.set()

    def _acknowledged(self) -> None:
        sender = self._sender
        if (
            sender.unsent >= _MANY_ACKNOWLEDGEMENTS
            or sender.failure is not None
            or not self._more_to_come
        ):
            self._urgent.set()
        self._news.set()
        self._changed.set()

    def _fail(self, error: MyStocksError) -> None:
        self._failure = self._failure or error
        self._wake()

    async def _linger(self) -> None:
        """Sends at once after a silence, and otherwise what has come together."""
        loop = asyncio.get_running_loop()
        if not self._urgent.is_set() and self._more_to_come:
            wait = self._sent_at + _ACKNOWLEDGEMENT_LINGER_S - loop.time()
            if wait > 0:
                timer = loop.call_later(wait, self._urgent.set)
                await self._urgent.wait()
                timer.cancel()
        wait = self._sent_at + self._linger_s - loop.time()
        if wait > 0 and not self._done:
            await asyncio.sleep(wait)

    async def _send(self) -> None:
        sender = self._sender
        while True:
            parts = []
            if sender.has_news:
                parts.append(frame(_ACKNOWLEDGEMENTS, sender.take().SerializeToString()))
                self._sink.made_room()
            blocks = None
            if self._feed is not None:
                blocks = self._feed.take(_RESPONSE_BYTES)
                if blocks:
                    parts.append(frames(_BLOCKS, [block.data for block in blocks]))
            if not parts and (blocks is None or not self._selected):
                return
            if self._feed is not None:
                parts.append(frame(_RESUME, self._feed.token))
            await self._context.write(b"".join(parts))
            self._sent_at = asyncio.get_running_loop().time()
            self._entry.touch()

    def _reason_to_end(self) -> BaseException | None:
        feed = self._feed
        return self._failure or self._sender.failure or (feed.error if feed is not None else None)

    async def _end(self, failure: BaseException) -> None:
        """Sends what is acknowledged, and raises."""
        if not isinstance(failure, MyStocksError):
            raise failure
        code, retry_after_s, field = failure_of(failure)
        if failure is not self._sender.failure or code == Code.INVALID_ARGUMENT:
            # What was received before is on its way into the log.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    await self._until_acknowledged()
        await self._send()
        raise StreamInterruptedError(
            code,
            str(failure),
            # Of the last feed, also where a selection was refused that should have followed it.
            resume=self._entry.progress.token if self._entry.progress is not None else b"",
            unacknowledged=self._sender.unacknowledged,
            retry_after_s=retry_after_s,
            field=field,
        ) from failure

    async def _read(self) -> None:
        try:
            await self._read_requests()
            if self._reason_to_end() is None:
                await self._drain()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
        self._wake()

    async def _read_requests(self) -> None:
        read, sink, sender, entry = self._context.read, self._sink, self._sender, self._entry
        # A client that does not read the reason to end must not go on being read itself.
        while self._reason_to_end() is None and (raw := await read()) is not grpc.aio.EOF:
            entry.touch()
            number, ticks, receive = parse_request(raw)
            if ticks is None:
                await self._receive(receive)
                continue
            if self._feed is None and self._wants_rows:
                await self._listen()
            sink.submit(sender, number, ticks)
            await sink.wait_for_room(sender)

    async def _listen(self) -> None:
        """Rows of the symbols that are sent, from the first tick on."""
        listener = await self._feed_context.enter_async_context(self._hub.listen(self._set, set()))
        self._sender.on_symbols = partial(self._widen, listener)
        self._feed = self._entry.progress = RowFeed(listener, self._sender, self._wake)

    def _widen(self, listener: Listener, symbols: set[str]) -> None:
        if len(listener.symbols) + len(symbols - listener.symbols) <= MAX_SYMBOLS:
            listener.add_symbols(symbols)
        else:
            self._sender.on_symbols = None
            self._fail(
                RequestFailedError(
                    Code.RESOURCE_EXHAUSTED,
                    f"expected ticks of at most {MAX_SYMBOLS} symbols on a stream that gets their "
                    "rows back, was of more; use several streams, or say by `select` or `no_rows` "
                    "what is to come back",
                )
            )

    async def _receive(self, selection: FeatureSelection | NoRows | None) -> None:
        """Rows of a selection from now on, or none, in place of what came so far."""
        self._sender.on_symbols = None
        await self._stop_feed()
        self._selected = self._wants_rows = isinstance(selection, FeatureSelection)
        if not isinstance(selection, FeatureSelection):
            return
        subscription = await self._feed_context.enter_async_context(
            self._hub.subscribe(selection, SubscribeFeaturesRequest(selection=selection))
        )
        self._feed = self._entry.progress = RowFeed(subscription, None, self._wake)

    async def _stop_feed(self) -> None:
        if self._feed is not None:
            await self._feed.close()
            self._feed = None
        await self._feed_context.aclose()
        self._feed_context = contextlib.AsyncExitStack()

    async def _until_acknowledged(self) -> None:
        while not self._sender.idle:
            self._changed.clear()
            await self._changed.wait()

    async def _drain(self) -> None:
        """After the client has closed its side: until every tick has come back as a row."""
        if self._selected:
            return
        await self._until_acknowledged()
        if self._sender.last_offset and self._feed is not None:
            await self._until_processed(self._feed)
        self._done = True

    async def _until_processed(self, feed: RowFeed) -> None:
        """Until the features group is past the last tick, and its rows are in the feed."""
        while True:
            try:
                await self._progress.passed(await self._last_offsets())
                await self._hub.caught_up(self._set, await self._progress.feature_ends())
            except UnavailableError:
                # The rows come when the broker does; the idle time-out bounds the wait.
                await asyncio.sleep(_RETRY_S)
            else:
                feed.finish()
                return

    async def _last_offsets(self) -> dict[int, int]:
        """The last acknowledged offset of each partition, or one after it."""
        offsets = dict(self._sender.last_offset)
        if UNKNOWN_OFFSET in offsets.values():
            ends = await self._progress.ends()
            for partition, offset in offsets.items():
                if offset == UNKNOWN_OFFSET:
                    offsets[partition] = ends[partition] - 1
        return offsets
