"""A gRPC client that knows nothing but an address: everything else it asks the server.

Written from the `.proto` files; nothing of this project is imported.
"""

import math
import queue
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PACKAGE = "mystocks.v1"
CALL_TIMEOUT_S = 30.0


class ReflectedClient:
    """Calls any method by name, with message classes made from the server's descriptors."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._database = ProtoReflectionDescriptorDatabase(self._channel)
        self._pool = DescriptorPool(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def services(self) -> set[str]:
        return set(self._database.get_services())

    def new(self, name: str, **fields: Any) -> Any:
        """Returns a message; nested messages may be given as mappings."""
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def call(self, method: str, request: Any = None, /, **fields: Any) -> Any:
        """Calls `Service/Method`; streams of responses are iterated by the caller.

        Args:
            method: With or without its package.
            request: An iterator of requests where the method takes a stream.
            **fields: Of the request where it takes one.
        """
        path = method if method.count(".") else f"{PACKAGE}.{method}"
        service, _, name = path.partition("/")
        found = self._pool.FindServiceByName(service).methods_by_name[name]
        kind = "_".join(
            "stream" if streams else "unary"
            for streams in (found.client_streaming, found.server_streaming)
        )
        request_class = GetMessageClass(found.input_type)
        send = getattr(self._channel, kind)(
            f"/{path}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=GetMessageClass(found.output_type).FromString,
        )
        return send(request_class(**fields) if request is None else request, timeout=CALL_TIMEOUT_S)


class Row(NamedTuple):
    """One row of a FeatureBlock; `partition` is None where the row is in no topic."""

    partition: int | None
    row: int
    symbol: str
    event_time_ns: int
    price: float
    values: dict[str, float | None]


def rows_of(blocks: Iterable[Any]) -> list[Row]:
    """Reads blocks as `market.proto` describes them."""
    rows = []
    for block in blocks:
        count = len(block.symbol_index)
        assert len(block.event_time_ns) == len(block.prices) == count
        assert len(block.values) == len(block.names) * count
        offsets = list(block.row_offset) or range(count)
        in_topic = block.HasField("first_row")
        for i in range(count):
            values = {name: block.values[k * count + i] for k, name in enumerate(block.names)}
            rows.append(
                Row(
                    block.first_row.partition if in_topic else None,
                    block.first_row.row + offsets[i],
                    block.symbols[block.symbol_index[i]],
                    block.event_time_ns[i],
                    block.prices[i],
                    {name: None if math.isnan(v) else v for name, v in values.items()},
                )
            )
    return rows


class MarketStream:
    """One `StreamMarketData` call, and everything that came back on it."""

    def __init__(self, client: ReflectedClient) -> None:
        self._client = client
        self._requests: queue.Queue = queue.Queue()
        self._number = 0
        self._responses = client.call(
            "RealTimeService/StreamMarketData", iter(self._requests.get, None)
        )
        self.accepted: dict[int, int] = {}
        self.places: dict[int, list[tuple[int, int]]] = {}
        self.refused: list[tuple[int, int, str]] = []
        self.blocks: list[Any] = []
        self.token: Any = None

    @property
    def rows(self) -> list[Row]:
        return rows_of(self.blocks)

    def send(self, **kind: Any) -> int:
        """Sends `tick=`, `batch=` or `select=`; returns the request's number."""
        self._number += 1
        self._requests.put(self._client.new("MarketDataRequest", number=self._number, **kind))
        return self._number

    def await_acknowledged(self, ticks: int) -> None:
        """Reads until so many ticks were accepted or refused."""
        self._read_until(lambda: sum(self.accepted.values()) + len(self.refused) >= ticks)

    def await_rows(self, count: int) -> None:
        """Reads until so many rows came."""
        self._read_until(lambda: len(self.rows) >= count)

    def finish(self) -> None:
        """Closes the sending side and reads until the server has ended the stream."""
        self._requests.put(None)
        for response in self._responses:
            self._take(response)

    def cancel(self) -> None:
        self._requests.put(None)
        self._responses.cancel()

    def _read_until(self, reached: Any) -> None:
        while not reached():
            self._take(next(self._responses))

    def _take(self, response: Any) -> None:
        told = response.acknowledgements
        columns = (told.number, told.accepted, told.partition, told.offset)
        for number, accepted, partition, offset in zip(*columns, strict=True):
            self.accepted[number] = self.accepted.get(number, 0) + accepted
            self.places.setdefault(number, []).append((partition, offset))
        self.refused += [(bad.number, bad.row, bad.reason) for bad in told.refused]
        self.blocks += response.blocks
        if response.HasField("resume"):
            self.token = response.resume


def send_and_drain(client: ReflectedClient, *batches: list[dict[str, Any]]) -> MarketStream:
    """Sends batches of ticks and returns the stream when the server has ended it."""
    stream = MarketStream(client)
    for ticks in batches:
        stream.send(batch={"ticks": ticks})
    stream.finish()
    return stream


def prices(count: int, base: float = 100.0) -> list[float]:
    """Prices that go up and down."""
    return [base + (i * 37 % 23) / 7 for i in range(count)]


def ticks_of(symbol: str, prices: Iterable[float], start_ns: int) -> list[dict[str, Any]]:
    """Returns ticks a millisecond apart."""
    return [
        {"symbol": symbol, "event_time_ns": start_ns + i * 10**6, "price": price, "size": 1.0}
        for i, price in enumerate(prices)
    ]


def now_ns() -> int:
    """The present in whole seconds, so that times are easy to read in a failure."""
    return int(time.time()) * 10**9


def field_violations(error: grpc.RpcError) -> Iterator[tuple[str, str]]:
    """Yields (field, description) of the rich details of an error."""
    trailing = dict(error.trailing_metadata())
    for detail in Status.FromString(trailing["grpc-status-details-bin"]).details:
        violations = BadRequest()
        if detail.Unpack(violations):
            yield from ((v.field, v.description) for v in violations.field_violations)
