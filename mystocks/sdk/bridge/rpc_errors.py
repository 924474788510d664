"""From gRPC's statuses to the errors of this library."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mystocks.sdk.errors import (
    BridgeError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PreconditionError,
    RowGapError,
)
from mystocks.v1.realtime_pb2 import StreamInterrupted
from schemas.errors import MyStocksError, UnavailableError

_Code = grpc.StatusCode
# A server that stops, or a connection that is cut, shows as one of these.
_PASSING = frozenset({_Code.UNAVAILABLE, _Code.CANCELLED, _Code.ABORTED})


def is_passing(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same call may succeed a moment later."""
    code = error.code()
    return code in _PASSING or (
        code is _Code.RESOURCE_EXHAUSTED and retry_after_s(error) is not None
    )


def retry_after_s(error: grpc.aio.AioRpcError) -> float | None:
    """Returns the time after which the server wants to be asked again; None if it named none."""
    delay = error_details_pb2.RetryInfo()
    for detail in _status(error).details:
        if detail.Unpack(delay):
            return float(delay.retry_delay.ToNanoseconds() / 1e9)
    return None


def interruption(error: grpc.aio.AioRpcError) -> StreamInterrupted | None:
    """Returns what the server says about a stream that it ended early; None if nothing."""
    detail = StreamInterrupted()
    return detail if any(d.Unpack(detail) for d in _status(error).details) else None


def to_error(error: grpc.aio.AioRpcError, where: str) -> MyStocksError:
    """Returns the error to raise for the end of a call.

    Args:
        error: As gRPC raised it.
        where: The call and the server, for messages that the transport made.
    """
    code, message = error.code(), error.details() or error.code().name
    fields = _field_violations(error)
    for field, problem in fields.items():
        if field not in message:
            message += f" ({field})" if problem in message else f" ({field}: {problem})"
    if code in (_Code.INVALID_ARGUMENT, _Code.OUT_OF_RANGE):
        return InvalidRequestError(message, fields)
    if code is _Code.NOT_FOUND:
        return NotFoundError(message)
    if code is _Code.FAILED_PRECONDITION:
        return PreconditionError(message)
    if code is _Code.RESOURCE_EXHAUSTED:
        return OverloadedError(message, retry_after_s(error))
    if code is _Code.DEADLINE_EXCEEDED:
        return UnavailableError(
            f"expected an answer in time, was none ({where}); give the client a longer timeout_s, "
            "or ask for less"
        )
    if code in _PASSING:
        if message.startswith("expected"):
            return UnavailableError(message)
        return UnavailableError(
            f"expected a bridge that answers, was {message!r:.200} ({where}); check that it runs"
        )
    return BridgeError(
        f"expected an answer, was {code.name} {message!r:.300} ({where}); see the bridge's log"
    )


def to_subscription_error(error: grpc.aio.AioRpcError, where: str) -> MyStocksError:
    """As `to_error`, for a subscription: there a row that is out of range was deleted."""
    if error.code() is _Code.OUT_OF_RANGE:
        return RowGapError(error.details() or "the row to go on with was deleted")
    return to_error(error, where)


def _field_violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    request = error_details_pb2.BadRequest()
    for detail in _status(error).details:
        if detail.Unpack(request):
            return {v.field: v.description for v in request.field_violations}
    return {}


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The rich status; an empty one where the server sent none, or none that can be read."""
    try:
        # The function asks only for code, details and trailing metadata, which the error has.
        status: status_pb2.Status | None = rpc_status.from_call(error)
    except (ValueError, DecodeError):
        status = None
    return status or status_pb2.Status()
