"""From errors of this project to gRPC's statuses with details (`google.rpc.Status`)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from grpc_bridge.fanout.errors import BadSelectionError, StreamEndedError
from mystocks.v1 import realtime_pb2
from schemas.errors import ConfigurationError, InvalidInputError, MyStocksError, UnavailableError
from schemas.requests import Code, RequestFailedError

# A peer accepts 8 KiB of trailers; the message goes once as text and up to twice in the details,
# which travel as base64.
_MAX_TRAILER_BYTES = 7500
_MAX_MESSAGE_LENGTH = 1500
# Of a detail: the name of its type, and lengths.
_DETAIL_OVERHEAD = 80
_DETAILS_KEY = "grpc-status-details-bin"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class StreamInterruptedError(RequestFailedError):
    """A stream ends before its time; the details say how to go on without a gap or a double.

    Attributes:
        resume: Serialized ResumeToken with which `SubscribeFeatures` would go on, or empty.
        unacknowledged: Numbers of requests that were not acknowledged in full.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        resume: bytes = b"",
        unacknowledged: Sequence[int] = (),
        retry_after_s: float | None = None,
        field: str = "",
    ) -> None:
        super().__init__(code, message, field=field, retry_after_s=retry_after_s)
        self.resume = resume
        self.unacknowledged = unacknowledged


class Failure(NamedTuple):
    """What a client is to know of an error.

    Attributes:
        code: Of gRPC.
        retry_after_s: After which time the same request may succeed; None where it is not known.
        field: Path of the field of the request that is to blame, or empty.
    """

    code: Code
    retry_after_s: float | None
    field: str


def failure_of(error: MyStocksError) -> Failure:
    """Returns what a client is to know of an error."""
    retry_after_s, field = None, ""
    if isinstance(error, RequestFailedError | StreamEndedError):
        retry_after_s = error.retry_after_s
    if isinstance(error, RequestFailedError | BadSelectionError):
        field = error.field
    return Failure(_code(error), retry_after_s, field)


def status_of(error: MyStocksError) -> status_pb2.Status:
    """Returns the status that a client gets for an error."""
    code, retry_after_s, field = failure_of(error)
    message = str(error)
    if len(message) > _MAX_MESSAGE_LENGTH:
        message = message[: _MAX_MESSAGE_LENGTH - 1] + "…"
    status = status_pb2.Status(code=code, message=message)
    if field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        _attach(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_after_s * 1e9))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    room = (_MAX_TRAILER_BYTES - len(message)) * 3 // 4 - status.ByteSize() - _DETAIL_OVERHEAD
    if isinstance(error, StreamInterruptedError):
        _attach(status, _interrupted(error.resume, error.unacknowledged, room))
    elif isinstance(error, StreamEndedError):
        _attach(status, _interrupted(error.resume, (), room))
    return status


async def abort(context: Context, error: MyStocksError) -> NoReturn:
    """Ends a call with the status of an error.

    Raises:
        grpc.aio.AbortError: Always, as gRPC wants it.
    """
    status = status_of(error)
    await context.abort(
        _STATUS[status.code],
        status.message,
        ((_DETAILS_KEY, status.SerializeToString()),),
    )
    raise AssertionError("abort returned")


def _code(error: MyStocksError) -> Code:
    code = getattr(error, "code", None)
    if isinstance(code, grpc.StatusCode):
        return Code(code.value[0])
    if isinstance(code, Code):
        return code
    if isinstance(error, InvalidInputError):
        return Code.INVALID_ARGUMENT
    if isinstance(error, ConfigurationError):
        return Code.FAILED_PRECONDITION
    return Code.UNAVAILABLE if isinstance(error, UnavailableError) else Code.INTERNAL


def _attach(status: status_pb2.Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _interrupted(
    resume: bytes, unacknowledged: Sequence[int], room: int
) -> realtime_pb2.StreamInterrupted:
    """The detail, as much of it as fits into a trailer.

    Of the numbers the first ones stay. A token stays whole or not at all: a part of it would go on
    elsewhere, and the responses before the error had it too.
    """
    detail = realtime_pb2.StreamInterrupted(unacknowledged=unacknowledged)
    if resume and len(resume) < room:
        detail.resume.MergeFromString(resume)
    while detail.unacknowledged and detail.ByteSize() > room:
        del detail.unacknowledged[len(detail.unacknowledged) // 2 :]
    return detail
