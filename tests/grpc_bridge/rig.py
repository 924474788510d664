"""A bridge on a real broker, as a process or in the test's own loop, and a client that notes."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from confluent_kafka import Consumer, TopicPartition
from google.rpc import error_details_pb2, status_pb2

from grpc_bridge.metrics import BridgeMetrics
from grpc_bridge.server import BridgeServer
from mystocks.v1 import market_pb2, realtime_pb2, realtime_pb2_grpc
from schemas.settings import Settings, load_settings
from schemas.topics import topic_specs
from streams.kafka.admin import ensure_topics
from streams.kafka.ends import first_and_end

TIME = 1_700_000_000_000_000_000
PARTITIONS = 4
PATIENCE_S = 30.0


def bridge_settings(name: str, kafka: str, redis: str, data_dir: Path, **grpc: object) -> Settings:
    """Settings of a feature set of its own, with its topics."""
    settings = load_settings(
        kafka={"bootstrap_servers": kafka, "partitions": PARTITIONS},
        redis={"url": redis},
        data_dir=data_dir,
        features={"name": name, "source_topic": f"{name}.ticks"},
        grpc={"port": 0, **grpc},
    )
    create_topics(settings)
    return settings


def create_topics(settings: Settings) -> None:
    specs = topic_specs(settings, frozenset({"features", "compute"}))
    ensure_topics(settings, [spec for spec in specs if not spec.is_pattern])


@contextlib.asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[tuple[str, BridgeMetrics]]:
    """A bridge in this event loop."""
    metrics = BridgeMetrics()
    server = BridgeServer(settings, metrics)
    try:
        yield await server.start(), metrics
    finally:
        await server.stop()


class BridgeProcess:
    """Role `bridge` as a process of its own."""

    def __init__(self, settings: Settings, **grpc: object) -> None:
        update = settings.grpc.model_copy(update={"port": 0, **grpc})
        self.settings = settings.model_copy(update={"grpc": update})
        self.lines: list[str] = []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MYSTOCKS_")}
        environment |= self.settings.as_environment() | {"MYSTOCKS_LOG__FORMAT": "json"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mystocks.roles", "bridge"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.ready: dict[str, str] = {}
        self._ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)
            if '"event": "ready"' in line:
                self.ready = json.loads(line)
                self._ready.set()
        self._ready.set()

    @property
    def address(self) -> str:
        """Where it serves, once it does."""
        assert self._ready.wait(60), "".join(self.lines)
        assert self.ready, "".join(self.lines)
        return self.ready["grpc"]

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.asynccontextmanager
async def connected(
    address: str, **options: int
) -> AsyncIterator[realtime_pb2_grpc.RealTimeServiceStub]:
    arguments = [("grpc.use_local_subchannel_pool", 1)]
    arguments += [(f"grpc.{name}", value) for name, value in options.items()]
    async with grpc.aio.insecure_channel(address, options=arguments) as channel:
        yield realtime_pb2_grpc.RealTimeServiceStub(channel)


def tick(symbol: str, i: int = 0, **fields: object) -> market_pb2.Tick:
    values = {"event_time_ns": TIME + i, "price": 10.0 + i, "size": 1.0} | fields
    return market_pb2.Tick(symbol=symbol, **values)


class MarketClient:
    """One `StreamMarketData` call, or another one with rows; everything that comes back is noted.

    Attributes:
        acknowledged: (number, accepted, partition, offset), in the order they came.
        refused: (number, row, reason).
        rows: (partition, row) → (symbol, event time).
        twice: Row identities that came more than once.
        token: The newest resume token.
        order: What came: "ack" or "rows".
    """

    def __init__(
        self,
        stub: realtime_pb2_grpc.RealTimeServiceStub,
        subscription: realtime_pb2.SubscribeFeaturesRequest | None = None,
    ) -> None:
        if subscription is None:
            self.call = stub.StreamMarketData()
        else:
            self.call = stub.SubscribeFeatures(subscription)
        self.acknowledged: list[tuple[int, int, int, int]] = []
        self.refused: list[tuple[int, int, str]] = []
        self.rows: dict[tuple[int, int], tuple[str, int]] = {}
        self.twice: list[tuple[int, int]] = []
        self.names: set[tuple[str, ...]] = set()
        self.token: market_pb2.ResumeToken | None = None
        self.order: list[str] = []
        self.responses = 0

    async def send(self, number: int, *ticks: market_pb2.Tick, batch: bool = False) -> None:
        if len(ticks) == 1 and not batch:
            request = realtime_pb2.MarketDataRequest(number=number, tick=ticks[0])
        else:
            batch_of = market_pb2.TickBatch(ticks=ticks)
            request = realtime_pb2.MarketDataRequest(number=number, batch=batch_of)
        await self.call.write(request)

    async def select(self, **selection: object) -> None:
        chosen = realtime_pb2.FeatureSelection(**selection)
        await self.call.write(realtime_pb2.MarketDataRequest(select=chosen))

    async def no_rows(self) -> None:
        await self.call.write(realtime_pb2.MarketDataRequest(no_rows={}))

    @property
    def accepted(self) -> int:
        return sum(entry[1] for entry in self.acknowledged)

    @property
    def row_symbols(self) -> Counter:
        return Counter(symbol for symbol, _ in self.rows.values())

    async def until(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Reads until something is true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert await self.read(), f"the stream ended: {await self.ended()}"

    async def rest(self, timeout_s: float = PATIENCE_S) -> grpc.StatusCode:
        """Reads to the end and returns the status."""
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.read():
                    pass
            return await self.call.code()

    async def finish(self, timeout_s: float = PATIENCE_S) -> None:
        """Closes this side and reads to the end, which has to be a good one."""
        await self.call.done_writing()
        code = await self.rest(timeout_s)
        assert code is grpc.StatusCode.OK, await self.ended()

    async def ended(self) -> str:
        return f"{await self.call.code()} {await self.call.details()}"

    async def read(self) -> bool:
        response = await self.call.read()
        if response is grpc.aio.EOF:
            return False
        self.responses += 1
        if isinstance(response, realtime_pb2.MarketDataResponse):
            acks = response.acknowledgements
            columns = (acks.number, acks.accepted, acks.partition, acks.offset)
            self.acknowledged += zip(*columns, strict=True)
            self.refused += [(r.number, r.row, r.reason) for r in acks.refused]
            self.order += ["ack"] * bool(acks.number)
        self.order += ["rows"] * bool(response.blocks)
        for block in response.blocks:
            self.names.add(tuple(block.names))
            for identity, value in block_rows(block):
                if identity in self.rows:
                    self.twice.append(identity)
                self.rows[identity] = value
        if response.HasField("resume"):
            self.token = response.resume
        return True


def block_rows(block: market_pb2.FeatureBlock):
    """Yields ((partition, row), (symbol, event time))."""
    offsets = block.row_offset or range(len(block.prices))
    for i, offset in enumerate(offsets):
        identity = (block.first_row.partition, block.first_row.row + offset)
        yield identity, (block.symbols[block.symbol_index[i]], block.event_time_ns[i])


async def settled(stub: realtime_pb2_grpc.RealTimeServiceStub) -> int:
    """Ticks received of the oldest stream once they do not become more."""
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 0.6:
        stats = await stub.GetStreamStats(realtime_pb2.GetStreamStatsRequest())
        now = stats.streams[0].ticks_received if stats.streams else 0
        if now != before or now == 0:
            before, since = now, time.monotonic()
        await asyncio.sleep(0.05)
    return before


async def details(call) -> dict[str, object]:
    """The messages in the status of a call that failed, by name."""
    metadata = dict(await call.trailing_metadata())
    return unpacked(metadata.get("grpc-status-details-bin", b""))


def unpacked(raw: bytes) -> dict[str, object]:
    kinds = {
        "BadRequest": error_details_pb2.BadRequest,
        "RetryInfo": error_details_pb2.RetryInfo,
        "StreamInterrupted": realtime_pb2.StreamInterrupted,
    }
    found = {}
    for detail in status_pb2.Status.FromString(raw).details:
        name = detail.TypeName().rpartition(".")[2]
        found[name] = kinds[name]()
        assert detail.Unpack(found[name])
    return found


def log_ticks(settings: Settings) -> dict[tuple[int, int], list[market_pb2.Tick]]:
    """All ticks of the source topic by (partition, offset)."""
    reader = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": "reader",
            "enable.auto.commit": False,
        }
    )
    topic = settings.features.source_topic
    ends = {
        p: first_and_end(reader, TopicPartition(topic, p), PATIENCE_S)[1] for p in range(PARTITIONS)
    }
    reader.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    found: dict[tuple[int, int], list[market_pb2.Tick]] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < sum(ends.values()) and time.monotonic() < deadline:
        for message in reader.consume(500, 0.1):
            assert message.error() is None
            ticks = market_pb2.TickBatch.FromString(message.value()).ticks
            found[message.partition(), message.offset()] = list(ticks)
            newest = max(t.event_time_ns for t in ticks)
            assert message.timestamp()[1] == newest // 1_000_000
    reader.close()
    return found
