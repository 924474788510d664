"""Why a request failed, in one type for every entry: gRPC, a topic, Python."""

from enum import IntEnum

from schemas.errors import MyStocksError

# gRPC carries an error in a trailer, and peers accept 8 KiB of all trailers together.
_MAX_MESSAGE_LENGTH = 1500


class Code(IntEnum):
    """The codes of gRPC that this project answers with."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RequestFailedError(MyStocksError):
    """A request cannot be answered.

    Attributes:
        code: What kind of failure.
        message: "expected X, was Y (field); do Z".
        field: Path of the field of the request that is to blame, as ``rows.close[3]``, or empty.
        retry_after_s: After which time the same request may succeed; None where it is not known to.
    """

    def __init__(
        self, code: Code, message: str, *, field: str = "", retry_after_s: float | None = None
    ) -> None:
        if len(message) > _MAX_MESSAGE_LENGTH:
            message = message[: _MAX_MESSAGE_LENGTH - 1] + "…"
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
