"""From methods of a service to gRPC's handlers: parsing, errors, metrics in one place."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from grpc_bridge.errors import Context, abort, failure_of
from grpc_bridge.metrics import BridgeMetrics
from schemas.errors import MyStocksError
from schemas.requests import Code, RequestFailedError

_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Unary:
    """A method with one answer.

    Attributes:
        call: Takes the request and the context; returns a message or its bytes.
        raw: Takes the request's bytes instead.
    """

    call: Callable[[Any, Context], Awaitable[Message | bytes]]
    raw: bool = False


@dataclass(frozen=True, slots=True)
class ServerStream:
    """A method with many answers; `call` takes the request and writes bytes to the context."""

    call: Callable[[Any, Context], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Duplex:
    """A method with many requests and answers; `call` reads and writes bytes of the context."""

    call: Callable[[Context], Awaitable[None]]


Method: TypeAlias = Unary | ServerStream | Duplex


class Service(Protocol):
    """A service of `protos/`.

    Attributes:
        descriptor: What `protos/` says of it.
        methods: What is built, by name of the method.
    """

    descriptor: ServiceDescriptor
    methods: Mapping[str, Method]


def handler_of(service: Service, metrics: BridgeMetrics) -> grpc.GenericRpcHandler:
    """Returns gRPC's handler of every method of a service.

    A request that cannot be parsed is answered with INVALID_ARGUMENT, an error of this project
    with its status and details, any other with INTERNAL; a method that is not built with
    UNIMPLEMENTED.

    Args:
        service: What to serve.
        metrics: Told about every call.
    """
    handlers = {
        method.name: _Handler(method, service, metrics).rpc_method_handler()
        for method in service.descriptor.methods
    }
    name = service.descriptor.full_name
    handler: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(name, handlers)
    return handler


class _Handler:
    def __init__(
        self, descriptor: MethodDescriptor, service: Service, metrics: BridgeMetrics
    ) -> None:
        self._descriptor = descriptor
        self._name = descriptor.name
        self._service = service
        self._method = service.methods.get(descriptor.name)
        self._metrics = metrics
        self._request = message_factory.GetMessageClass(descriptor.input_type)

    def rpc_method_handler(self) -> Any:
        # Messages are (de)serialized here, so that gRPC passes bytes through.
        if self._descriptor.client_streaming:
            if self._descriptor.server_streaming:
                return grpc.stream_stream_rpc_method_handler(self._duplex)
            return grpc.stream_unary_rpc_method_handler(self._unary)
        if self._descriptor.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._server_stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, raw: bytes, context: Context) -> bytes:
        async def run() -> bytes:
            method = self._method
            if not isinstance(method, Unary):
                raise self._not_built()
            answer = await method.call(raw if method.raw else self._parse(raw), context)
            return answer if isinstance(answer, bytes) else answer.SerializeToString()

        return await self._observed(run, context)

    async def _server_stream(self, raw: bytes, context: Context) -> None:
        async def run() -> None:
            if not isinstance(self._method, ServerStream):
                raise self._not_built()
            await self._method.call(self._parse(raw), context)

        await self._observed(run, context)

    async def _duplex(self, _requests: object, context: Context) -> None:
        async def run() -> None:
            if not isinstance(self._method, Duplex):
                raise self._not_built()
            await self._method.call(context)

        await self._observed(run, context)

    async def _observed(self, run: Callable[[], Awaitable[_Result]], context: Context) -> _Result:
        self._metrics.began(self._name)
        began = time.monotonic()
        code = "OK"
        try:
            return await run()
        except MyStocksError as error:
            code = failure_of(error).code.name
            await abort(context, error)
        except asyncio.CancelledError:
            remaining = context.time_remaining()
            expired = remaining is not None and remaining <= 0
            code = "DEADLINE_EXCEEDED" if expired else "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            _log.exception("call failed", method=self._name)
            await abort(
                context,
                RequestFailedError(
                    Code.INTERNAL,
                    f"expected {self._name} to be answered, the bridge failed; see its log",
                ),
            )
        finally:
            self._metrics.ended(self._name, code, time.monotonic() - began)

    def _parse(self, raw: bytes) -> Message:
        try:
            return self._request.FromString(raw)
        except DecodeError as error:
            raise RequestFailedError(
                Code.INVALID_ARGUMENT,
                f"expected a {self._descriptor.input_type.name}, was {len(raw)} bytes that are "
                f"none ({error}); correct the sender",
                field="request",
            ) from None

    def _not_built(self) -> RequestFailedError:
        built = ", ".join(self._service.methods) or "none of this service yet"
        return RequestFailedError(
            Code.UNIMPLEMENTED,
            f"expected a method that is built, was {self._name}; this version has {built}",
        )
