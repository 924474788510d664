"""A bridge in this process, over a log in memory: what the .proto files say, and faults on order.

The only feature is `double`, twice the price; a symbol's first row has none.
"""

import asyncio
import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from mystocks.v1 import market_pb2, realtime_pb2, realtime_pb2_grpc

PARTITIONS = 2
TOPIC_ID = "dG9waWNpZA"
NAN = float("nan")
FEATURES = ("double", "triple")


def partition_of(symbol: str) -> int:
    return len(symbol) % PARTITIONS


def details(code: grpc.StatusCode, message: str, *parts) -> tuple:
    """Arguments of `context.abort` with rich details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for part in parts:
        status.details.add().Pack(part)
    return code, message, (("grpc-status-details-bin", status.SerializeToString()),)


def retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(nanos=int(seconds * 1e9)))


def violation(field: str, text: str) -> error_details_pb2.BadRequest:
    found = error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
    return error_details_pb2.BadRequest(field_violations=[found])


class FakeBridge(realtime_pb2_grpc.RealTimeServiceServicer):
    """Starts at once; `stop` ends it. All state may be looked at from the test's thread."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: Counter[str] = Counter()
        self.requests: list = []
        self.faults: dict[str, deque] = {}
        # Blocks of a partition, in the order of offsets: (row, symbol, time, price, first of it).
        self.blocks: list[list[list[tuple]]] = [[] for _ in range(PARTITIONS)]
        self.oldest = [0] * PARTITIONS
        self.seen: set[str] = set()
        # Ends a subscription after a response where it returns True.
        self.cut: Callable[[], bool] = lambda: False
        self.hold = threading.Event()  # while set, ticks are not read
        self.silent = False  # no acknowledgements
        self.topic_id = TOPIC_ID
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start(0))
        self._ready.set()
        self._loop.run_forever()
        self._loop.close()

    async def _start(self, port: int) -> None:
        self._changed = asyncio.Event()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        realtime_pb2_grpc.add_RealTimeServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self._port}"
        await self._server.start()

    def on_loop(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    def restart(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Ends all calls, and comes back at the same address."""
        self.on_loop(self._server.stop(None))
        meanwhile()
        self.on_loop(self._start(self._port))

    def stop(self) -> None:
        self.on_loop(self._server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def fail(self, method: str, *faults: tuple) -> None:
        """The next calls of `method` end like this: (code, message[, trailers])."""
        self.faults[method] = deque(faults)

    async def _enter(self, method: str, request, context) -> None:
        self.calls[method] += 1
        self.requests.append(request)
        if self.faults.get(method):
            await context.abort(*self.faults[method].popleft())

    # The log.

    def write(self, ticks: list[tuple[str, int, float]], block_rows: int = 3) -> None:
        """Appends rows from any thread."""
        self.on_loop(self._write(ticks, block_rows))

    async def _write(self, ticks, block_rows):
        places = [self._append(symbol, time, price, block_rows) for symbol, time, price in ticks]
        self._changed.set()
        self._changed = asyncio.Event()
        return places

    def _append(self, symbol, time, price, block_rows) -> tuple[int, int]:
        partition = partition_of(symbol)
        blocks = self.blocks[partition]
        if not blocks or len(blocks[-1]) >= block_rows:
            blocks.append([])
        row = sum(map(len, blocks))
        blocks[-1].append((row, symbol, time, price, symbol not in self.seen))
        self.seen.add(symbol)
        return partition, len(blocks) - 1

    def identities(self) -> set[tuple[int, int]]:
        return {(p, r[0]) for p in range(PARTITIONS) for block in self.blocks[p] for r in block}

    def _message(self, partition, offset, rows, names) -> market_pb2.FeatureBlock:
        symbols = sorted({row[1] for row in rows})
        names = list(names) or list(FEATURES)
        first = rows[0][0]
        return market_pb2.FeatureBlock(
            feature_set="ticks",
            set_hash="hash",
            names=names,
            symbols=symbols,
            symbol_index=[symbols.index(row[1]) for row in rows],
            event_time_ns=[row[2] for row in rows],
            prices=[row[3] for row in rows],
            values=[
                NAN if row[4] else row[3] * (2 + FEATURES.index(name))
                for name in names
                for row in rows
            ],
            first_row=market_pb2.RowPosition(partition=partition, row=first),
            row_offset=[row[0] - first for row in rows],
            source_first_offset=offset,
            source_last_offset=offset,
        )

    # The service.

    async def SubscribeFeatures(self, request, context):  # noqa: N802 - the service's
        await self._enter("SubscribeFeatures", request, context)
        choice, start = request.selection, request.WhichOneof("start")
        offsets = [0] * PARTITIONS
        rows = [None] * PARTITIONS
        if start is None:
            offsets = [max(0, len(blocks) - 1) for blocks in self.blocks]
            rows = [sum(map(len, blocks)) for blocks in self.blocks]
        elif start == "resume":
            if request.resume.topic_id not in ("", self.topic_id):
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, "expected a token of this topic, was another"
                )
            for place in request.resume.next:
                rows[place.partition] = place.row if place.HasField("row") else None
                offsets[place.partition] = place.offset  # 0 where absent: reads from the start
                if place.HasField("offset") and place.offset < self.oldest[place.partition]:
                    await context.abort(
                        grpc.StatusCode.OUT_OF_RANGE, "expected row 5, it was deleted; do that"
                    )
        yield realtime_pb2.SubscribeFeaturesResponse(resume=self._token(offsets, rows))
        while True:
            changed = self._changed
            response = realtime_pb2.SubscribeFeaturesResponse()
            for partition, blocks in enumerate(self.blocks):
                for offset in range(offsets[partition], min(len(blocks), offsets[partition] + 2)):
                    # A block is rewritten while it grows; only what is new in it is sent.
                    found = [
                        row
                        for row in blocks[offset]
                        if (rows[partition] is None or row[0] >= rows[partition])
                    ]
                    wanted = [
                        row
                        for row in found
                        if (not choice.symbols or row[1] in choice.symbols)
                        and (start != "since_ns" or row[2] >= request.since_ns)
                    ]
                    if wanted:
                        response.blocks.append(
                            self._message(partition, offset, wanted, choice.names)
                        )
                    if found:
                        rows[partition] = found[-1][0] + 1
                    offsets[partition] = offset
                if (
                    offsets[partition] + 1 < len(blocks)
                    and rows[partition] is not None
                    and rows[partition] > blocks[offsets[partition]][-1][0]
                ):
                    offsets[partition] += 1
            if response.blocks:
                response.resume.CopyFrom(self._token(offsets, rows))
                yield response
                if self.cut():
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            elif self._at_end(offsets, rows):
                await changed.wait()

    def _at_end(self, offsets, rows) -> bool:
        return all(
            not blocks or (rows[p] is not None and rows[p] > blocks[-1][-1][0])
            for p, blocks in enumerate(self.blocks)
        )

    def _token(self, offsets, rows) -> market_pb2.ResumeToken:
        token = market_pb2.ResumeToken(topic_id=self.topic_id)
        for partition, (offset, row) in enumerate(zip(offsets, rows, strict=True)):
            token.next.add(partition=partition, offset=offset, row=row)
        return token

    async def StreamMarketData(self, iterator, context):  # noqa: N802 - the service's
        await self._enter("StreamMarketData", None, context)
        out: asyncio.Queue = asyncio.Queue(maxsize=2)
        reading = asyncio.create_task(self._take_ticks(iterator, out))
        try:
            while (response := await out.get()) is not None:
                if isinstance(response, tuple):
                    await context.abort(*response)
                yield response
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    async def _take_ticks(self, iterator, out: asyncio.Queue) -> None:
        select, rows = None, True
        async for request in iterator:
            self.requests.append(request)
            while self.hold.is_set():
                await asyncio.sleep(0.002)
            if self.faults.get("tick"):
                await out.put(self.faults["tick"].popleft())
                return
            if request.HasField("select"):
                select = request.select
                continue
            if request.HasField("no_rows"):
                rows = False
                continue
            if self.silent:
                continue
            ticks = request.batch.ticks if request.HasField("batch") else [request.tick]
            response = realtime_pb2.MarketDataResponse()
            accepted = []
            for row, tick in enumerate(ticks):
                if tick.price > 0:
                    accepted.append((tick.symbol, tick.event_time_ns, tick.price))
                else:
                    response.acknowledgements.refused.add(
                        number=request.number,
                        row=row,
                        reason=f"price is {tick.price:g}, expected a finite number above 0",
                    )
            places = await self._write(accepted, 100)
            for (partition, offset), count in Counter(places).items():
                news = response.acknowledgements
                news.number.append(request.number)
                news.accepted.append(count)
                news.partition.append(partition)
                news.offset.append(offset)
            if rows:
                self._add_rows(response, accepted, select)
            await out.put(response)
        if select is None and not self.silent:
            await out.put(None)

    def _add_rows(self, response, accepted, select) -> None:
        for partition, blocks in enumerate(self.blocks):
            count = sum(partition_of(tick[0]) == partition for tick in accepted)
            rows = [row for block in blocks for row in block]
            rows = rows[len(rows) - count :]
            names = ()
            if select is not None:
                rows = [row for row in rows if row[1] in select.symbols]
                names = select.names
            if rows:
                response.blocks.append(self._message(partition, len(blocks) - 1, rows, names))
        ends = [len(blocks) for blocks in self.blocks]
        rows = [sum(map(len, blocks)) for blocks in self.blocks]
        response.resume.CopyFrom(self._token([max(0, end - 1) for end in ends], rows))

    async def GetFeatures(self, request, context):  # noqa: N802 - the service's
        await self._enter("GetFeatures", request, context)
        newest = {row[1]: row for blocks in self.blocks for block in blocks for row in block}
        wanted = list(request.symbols) or sorted(newest)
        rows = [newest[symbol] for symbol in wanted if symbol in newest]
        response = realtime_pb2.GetFeaturesResponse(
            unknown_symbols=[symbol for symbol in wanted if symbol not in newest]
        )
        if rows:
            response.features.CopyFrom(self._message(0, 0, sorted(rows), request.names))
            response.features.ClearField("first_row")
            response.features.ClearField("row_offset")
        return response

    async def ComputeFeatures(self, request, context):  # noqa: N802 - the service's
        await self._enter("ComputeFeatures", request, context)
        closes = list(request.rows.close) or [1.0, 2.0]
        block = market_pb2.FeatureBlock(
            names=request.features,
            symbols=[request.symbol],
            event_time_ns=request.rows.event_time_ns,
            prices=closes,
            values=[NAN, *closes[1:]] * len(request.features),
        )
        return realtime_pb2.ComputeFeaturesResponse(features=block)

    async def GetStreamStats(self, request, context):  # noqa: N802 - the service's
        await self._enter("GetStreamStats", request, context)
        return realtime_pb2.GetStreamStatsResponse(
            max_streams=7,
            streams=[realtime_pb2.StreamStats(stream_id="s", peer="p", rows_sent=3)],
            partitions=[realtime_pb2.PartitionStats(partition=1, lag=4)],
        )


def ticks(count: int, symbols=("AAPL", "IBM", "MSFT"), seed: int = 1) -> list[tuple]:
    """Rows to write: times rise by a second."""
    chance = random.Random(seed)
    start = 1_362_171_600_000_000_000
    return [
        (chance.choice(symbols), start + i * 1_000_000_000, 100 + chance.random())
        for i in range(count)
    ]
