"""Clients of the gRPC bridge as load, in a process of their own; prints one JSON object.

Bare stubs of the generated code on grpc.aio, except for `sdk`, which is `mystocks.Client`.

    python benchmarks/bridge_load.py MODE ADDRESS [NUMBER]...
"""

import asyncio
import heapq
import json
import sys
import time
from pathlib import Path

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mystocks.v1 import market_pb2, realtime_pb2, realtime_pb2_grpc

STREAMS = 10
SYMBOLS = [f"BR{i:04d}" for i in range(1000)]
BATCH = 500
OPTIONS = [("grpc.max_receive_message_length", 64 * 1024**2)]
# Ticks of a stream whose rows are not back yet.
WINDOW = 10_000
# The first third of paced ticks warms up sockets and caches.
WARM_UP = 1 / 3


def channel(address: str, number: int = 0) -> grpc.aio.Channel:
    """Returns a channel with a connection of its own."""
    return grpc.aio.insecure_channel(
        address, [*OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("mystocks.number", number)]
    )


def tick(symbol: str, time_ns: int, price: float = 100.0) -> market_pb2.Tick:
    return market_pb2.Tick(symbol=symbol, event_time_ns=time_ns, price=price, size=1)


class Exchange:
    """One stream: sends requests, counts acknowledged ticks and rows, each identity once."""

    def __init__(self, stub, requests, wanted: int, echo: bool = False) -> None:
        self._stub = stub
        self._requests = requests
        self._wanted = wanted
        self._echo = echo
        self._sent = 0
        self._progress = asyncio.Event()
        self.acknowledged = 0
        self.rows = 0
        self.identities: list[np.ndarray] = []
        self.delays: list[np.ndarray] = []

    async def run(self) -> None:
        call = self._stub.StreamMarketData()
        sender = asyncio.create_task(self._send(call))
        async for response in call:
            if self._echo:
                self.rows += 1
                if self.rows == self._wanted:
                    break
                continue
            self.acknowledged += sum(response.acknowledgements.accepted)
            assert not response.acknowledgements.refused
            now = time.time_ns()
            for block in response.blocks:
                self._count(block, now)
            self._progress.set()
            if self.acknowledged >= self._wanted and self.rows >= self._wanted:
                break
        await sender
        call.cancel()

    def _count(self, block: market_pb2.FeatureBlock, now: int) -> None:
        times = np.array(block.event_time_ns)
        self.rows += len(times)
        offsets = np.array(block.row_offset or range(len(times)), np.int64)
        identity = (block.first_row.partition << 48) + block.first_row.row + offsets
        self.identities.append(identity)
        self.delays.append(now - times)

    async def _send(self, call) -> None:
        async for request in self._requests:
            # A reader that is slower than its own ticks is ended; a sensible client does not
            # run that far ahead.
            while not self._echo and self._sent - self.rows > WINDOW:
                self._progress.clear()
                await self._progress.wait()
            await call.write(request)
            self._sent += max(len(request.batch.ticks), 1)
        await call.done_writing()

    def assert_once(self) -> None:
        rows = np.concatenate(self.identities)
        assert len(np.unique(rows)) == len(rows) == self._wanted, (len(rows), self._wanted)


async def as_fast_as_possible(client: int, stream: int, count: int, per_message: int):
    """Yields requests of `count` ticks of symbols that no other stream uses."""
    own = [f"{symbol}.{client}" for symbol in SYMBOLS[stream::STREAMS]]
    now = time.time_ns()
    for first in range(0, count, per_message):
        if per_message == 1:
            one = tick(own[first % len(own)], now + first)
            yield realtime_pb2.MarketDataRequest(number=first, tick=one)
        else:
            ticks = [tick(own[i % len(own)], now + i) for i in range(first, first + per_message)]
            batch = market_pb2.TickBatch(ticks=ticks)
            yield realtime_pb2.MarketDataRequest(number=first, batch=batch)


async def exchange(
    address: str, count: int, per_message: int, *, echo: bool = False, client: int = 0
) -> dict:
    """Ten streams, as fast as flow control lets them; ticks per second until the last row.

    They share a connection, unless the client is one of several: then each has its own, so that
    processes on one port get about as many each.
    """
    each = count // STREAMS
    # Requests are made beforehand: what is measured is the bridge, not this client's constructor.
    prepared = [
        [request async for request in as_fast_as_possible(client, s, each, per_message)]
        for s in range(STREAMS)
    ]

    async def replay(requests):
        for request in requests:
            yield request

    links = [channel(address, i) for i in range(STREAMS if client else 1)]
    stubs = [realtime_pb2_grpc.RealTimeServiceStub(link) for link in links]
    wanted = each // per_message if echo else each
    streams = [
        Exchange(stubs[s % len(stubs)], replay(requests), wanted, echo)
        for s, requests in enumerate(prepared)
    ]
    began = time.perf_counter()
    await asyncio.gather(*(stream.run() for stream in streams))
    seconds = time.perf_counter() - began
    for link in links:
        await link.close()
    if not echo:
        for stream in streams:
            stream.assert_once()
    return {"ticks_per_s": each * STREAMS / seconds}


class Clock:
    """Wakes all who wait for a time once a millisecond, rather than each by a timer of its own."""

    async def __aenter__(self) -> "Clock":
        self._began = time.perf_counter()
        self._waiting: list[tuple[float, int, asyncio.Future]] = []
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def until(self, seconds: float) -> None:
        """Returns once so many seconds have passed."""
        if time.perf_counter() - self._began < seconds:
            future = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (seconds, id(future), future))
            await future

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter() - self._began
            while self._waiting and self._waiting[0][0] <= now:
                heapq.heappop(self._waiting)[2].set_result(None)


async def paced(address: str, streams: int, rate: float, seconds: float) -> dict:
    """Streams of single ticks at a steady rate; time from the send to the row back."""

    async def requests(stream: int):
        symbol = SYMBOLS[stream % len(SYMBOLS)] + f".{stream // len(SYMBOLS)}"
        step, each = streams / rate, int(rate * seconds / streams)
        for i in range(each):
            await clock.until(step * (i + stream / streams))
            one = tick(symbol, time.time_ns())
            yield realtime_pb2.MarketDataRequest(number=i, tick=one)

    each = int(rate * seconds / streams)
    links = [channel(address, i) for i in range(max(1, streams // 100))]
    runs = [
        Exchange(realtime_pb2_grpc.RealTimeServiceStub(links[s % len(links)]), requests(s), each)
        for s in range(streams)
    ]
    async with Clock() as clock:
        await asyncio.gather(*(run.run() for run in runs))
    for link in links:
        await link.close()
    kept = [np.concatenate(run.delays) for run in runs]
    delays = np.concatenate([d[int(len(d) * WARM_UP) :] for d in kept]) / 1e6
    return {"p50_ms": float(np.percentile(delays, 50)), "p99_ms": float(np.percentile(delays, 99))}


async def fan_out(address: str, subscribers: int, seconds: float) -> dict:
    """Subscribers of all symbols; rows per second after they were parsed."""
    links = [channel(address, i) for i in range(4)]
    rows = [0] * subscribers
    ready = asyncio.Semaphore(0)

    async def subscribe(number: int) -> None:
        stub = realtime_pb2_grpc.RealTimeServiceStub(links[number % len(links)])
        call = stub.SubscribeFeatures(realtime_pb2.SubscribeFeaturesRequest())
        ready.release()
        async for response in call:
            for block in response.blocks:
                rows[number] += len(block.event_time_ns)

    tasks = [asyncio.create_task(subscribe(i)) for i in range(subscribers)]
    for _ in range(subscribers):
        await ready.acquire()
    await asyncio.sleep(2.0)
    before, began = list(rows), time.perf_counter()
    await asyncio.sleep(seconds)
    took, got = time.perf_counter() - began, [a - b for a, b in zip(rows, before, strict=True)]
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for link in links:
        await link.close()
    return {"rows_per_s": sum(got) / took, "slowest_rows_per_s": min(got) / took}


async def resume(address: str, readers: int, token: bytes) -> dict:
    """Readers of all symbols come back at once; until each has what there was when they came."""
    links = [channel(address, i) for i in range(4)]
    stubs = [realtime_pb2_grpc.RealTimeServiceStub(link) for link in links]
    request = realtime_pb2.SubscribeFeaturesRequest(resume=market_pb2.ResumeToken.FromString(token))
    now = stubs[0].SubscribeFeatures(realtime_pb2.SubscribeFeaturesRequest())
    goal = {place.partition: place.row for place in (await now.read()).resume.next}
    now.cancel()

    async def read(number: int) -> int:
        call, rows = stubs[number % len(stubs)].SubscribeFeatures(request), 0
        async for response in call:
            rows += sum([len(block.event_time_ns) for block in response.blocks])
            at = {place.partition: place.row for place in response.resume.next}
            if all(at.get(partition, 0) >= row for partition, row in goal.items()):
                break
        call.cancel()
        return rows

    began = time.perf_counter()
    rows = await asyncio.gather(*(read(i) for i in range(readers)))
    seconds = time.perf_counter() - began
    for link in links:
        await link.close()
    return {"seconds": seconds, "rows_per_s": sum(rows) / seconds}


async def compute(address: str, seconds: float, at_once: int) -> dict:
    """ComputeFeatures of 500 rows and 5 features, so many at a time."""
    rng = np.random.default_rng(1)
    close = 100 + np.cumsum(rng.normal(0, 0.1, 500))
    times = 1_700_000_000_000_000_000 + np.arange(500) * 60_000_000_000
    request = realtime_pb2.ComputeFeaturesRequest(
        features=["sma_20", "ema_12", "rsi_14", "macd_12_26_9", "bollinger_20_2"],
        symbol="BENCH",
        rows=market_pb2.OhlcvRows(event_time_ns=times, close=close),
    )
    delays: list[float] = []
    async with channel(address) as link:
        stub = realtime_pb2_grpc.RealTimeServiceStub(link)
        await stub.ComputeFeatures(request, timeout=30)
        end = time.perf_counter() + seconds

        async def ask() -> None:
            while (began := time.perf_counter()) < end:
                answer = await stub.ComputeFeatures(request, timeout=30)
                assert len(answer.features.prices) == 500
                delays.append(time.perf_counter() - began)

        await asyncio.gather(*(ask() for _ in range(at_once)))
    return {
        "p50_ms": float(np.percentile(delays, 50) * 1e3),
        "p99_ms": float(np.percentile(delays, 99) * 1e3),
        "per_s": len(delays) / seconds,
    }


def sdk(address: str, count: int) -> dict:
    """`stream.send` of single ticks from one thread, until all of them are acknowledged."""
    from mystocks import Client

    with Client(address) as client, client.stream(rows=False) as stream:
        began = time.perf_counter()
        now = time.time_ns()
        for i in range(count):
            stream.send(SYMBOLS[i % len(SYMBOLS)], now + i, 100.0)
        stream.flush(60)
        seconds = time.perf_counter() - began
        assert stream.acknowledged == count, (stream.acknowledged, count)
    return {"ticks_per_s": count / seconds}


class Echo(realtime_pb2_grpc.RealTimeServiceServicer):
    """The limit: answers every request with a response that holds as much."""

    async def StreamMarketData(self, request_iterator, _context):  # noqa: N802
        number = 0
        async for request in request_iterator:
            number += 1
            yield realtime_pb2.MarketDataResponse(
                acknowledgements=realtime_pb2.Acknowledgements(
                    number=[request.number], accepted=[1], partition=[0], offset=[number]
                )
            )


async def serve_echo() -> None:
    server = grpc.aio.server(options=OPTIONS)
    realtime_pb2_grpc.add_RealTimeServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


def main() -> None:
    mode, *rest = sys.argv[1:]
    if mode == "serve-echo":
        asyncio.run(serve_echo())
        return
    address, *given = rest
    if mode == "sdk":
        result = sdk(address, int(float(given[0])))
    elif mode == "resume":
        result = asyncio.run(resume(address, int(given[0]), bytes.fromhex(given[1])))
    else:
        numbers = [float(number) for number in given]
        run = {
            "single": lambda: exchange(address, int(numbers[0]), 1, client=int(sum(numbers[1:]))),
            "echo": lambda: exchange(address, int(numbers[0]), 1, echo=True),
            "batch": lambda: exchange(address, int(numbers[0]), BATCH),
            "paced": lambda: paced(address, int(numbers[0]), numbers[1], numbers[2]),
            "fanout": lambda: fan_out(address, int(numbers[0]), numbers[1]),
            "compute": lambda: compute(address, numbers[0], int(numbers[1])),
        }[mode]
        result = asyncio.run(run())
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
