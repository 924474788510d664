"""How long acknowledgements wait for others, and for rows, on a clock that jumps ahead."""

import asyncio
import selectors
from contextlib import asynccontextmanager

import pytest

from grpc_bridge.market_stream import MarketStream
from grpc_bridge.registry import StreamEntry
from mystocks.v1 import market_pb2, realtime_pb2
from schemas.settings import load_settings

# A tick's way into the log.
LOG_S = 0.003
LINGER_S = 0.002
TICKS = 40


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that never sleeps: where it would, its clock goes on by as much."""

    def __init__(self) -> None:
        self.now = 100.0
        loop = self

        class Selector(selectors.SelectSelector):
            def select(self, timeout=None):
                found = super().select(0)
                if not found:
                    assert timeout is not None, "everybody waits for somebody else"
                    loop.now += max(timeout, 0.0)
                return found

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


class Call:
    """The client's side: what it sends, and when which acknowledgements came."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue = asyncio.Queue()
        self._came = asyncio.Event()
        self.acknowledged: list[int] = []
        self.responses = 0

    async def read(self):
        return await self._requests.get()

    async def write(self, raw: bytes) -> None:
        response = realtime_pb2.MarketDataResponse.FromString(raw)
        self.responses += 1
        self.acknowledged += response.acknowledgements.number
        self._came.set()

    def send(self, **request: object) -> None:
        message = realtime_pb2.MarketDataRequest(**request)
        self._requests.put_nowait(message.SerializeToString())

    def send_tick(self, number: int) -> None:
        tick = market_pb2.Tick(symbol="AAPL", event_time_ns=1, price=1.0)
        self.send(number=number, tick=tick)

    async def until_acknowledged(self, number: int) -> None:
        while number not in self.acknowledged:
            self._came.clear()
            await self._came.wait()


class Sink:
    """A log that takes one tick after the other."""

    def __init__(self) -> None:
        self._free_at = 0.0
        self._offset = 0

    def submit(self, sender, number: int, value: bytes) -> None:
        loop = asyncio.get_running_loop()
        request = sender.receive(number, len(value))
        request.records = 1
        sender.in_flight[0] = sender.in_flight.get(0, 0) + 1
        self._free_at = max(loop.time(), self._free_at) + LOG_S
        self._offset += 1
        loop.call_at(self._free_at, sender.acknowledge, request, 1, 0, self._offset)

    async def wait_for_room(self, sender) -> None: ...

    def made_room(self) -> None: ...


class Hub:
    """Has no rows, ever."""

    symbols = frozenset()
    queued_bytes = lag_rows = 0
    token = b""

    @asynccontextmanager
    async def listen(self, *_arguments):
        yield self

    @asynccontextmanager
    async def subscribe(self, *_arguments):
        yield self

    async def take(self):
        await asyncio.Event().wait()


def on_a_stream(client) -> tuple[Call, float]:
    """Serves a client; returns what it got and how many seconds that took."""

    async def serve() -> tuple[Call, float]:
        call, loop = Call(), asyncio.get_running_loop()
        settings = load_settings(grpc={"linger_ms": LINGER_S * 1000})
        entry = StreamEntry("s", "p", "StreamMarketData")
        stream = MarketStream(call, entry, Sink(), Hub(), None, settings)
        serving = asyncio.create_task(stream.run())
        began = loop.time()
        await client(call)
        took = loop.time() - began
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return call, took

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(serve())


async def one_after_the_other(call: Call) -> None:
    for number in range(1, TICKS + 1):
        call.send_tick(number)
        await call.until_acknowledged(number)


@pytest.mark.parametrize("wanted", [{"no_rows": {}}, {"select": {"symbols": ["IBM"]}}])
def test_a_client_that_waits_for_each_acknowledgement_is_not_held_up(wanted):
    async def client(call: Call) -> None:
        call.send(**wanted)
        await one_after_the_other(call)

    call, took = on_a_stream(client)
    assert call.acknowledged == list(range(1, TICKS + 1))
    assert took <= TICKS * (LOG_S + LINGER_S) + 1e-6


def test_where_rows_of_the_ticks_follow_acknowledgements_wait_for_them():
    _, took = on_a_stream(one_after_the_other)
    assert took >= (TICKS - 1) * 0.02


@pytest.mark.parametrize("wanted", [{"no_rows": {}}, {"select": {"symbols": ["IBM"]}}])
def test_acknowledgements_that_follow_each_other_come_together(wanted):
    async def client(call: Call) -> None:
        call.send(**wanted)
        for number in range(1, TICKS + 1):
            call.send_tick(number)
        await call.until_acknowledged(TICKS)

    call, took = on_a_stream(client)
    assert call.acknowledged == list(range(1, TICKS + 1))
    # The first one at once, then each time those of 20 ms; the last ones wait for nobody.
    assert call.responses <= 2 + TICKS * LOG_S / 0.02
    assert took <= TICKS * LOG_S + LINGER_S + 1e-6
