"""Why a subscription is refused or ends, with the gRPC code of each reason."""

from typing import ClassVar

from grpc import StatusCode

from schemas.errors import InvalidInputError, MyStocksError, UnavailableError


class BadSelectionError(InvalidInputError):
    """A field of a selection or of a resume token is not acceptable.

    Attributes:
        code: For gRPC.
        field: Path of the field in the request.
    """

    code: ClassVar[StatusCode] = StatusCode.INVALID_ARGUMENT

    def __init__(self, message: str, field: str) -> None:
        super().__init__(f"{message} ({field})")
        self.field = field


class UnknownFeatureSetError(MyStocksError):
    """There is no topic of that feature set."""

    code: ClassVar[StatusCode] = StatusCode.NOT_FOUND


class StartDeletedError(MyStocksError):
    """The rows to begin with were deleted from the topic, or never were in it."""

    code: ClassVar[StatusCode] = StatusCode.OUT_OF_RANGE


class StreamEndedError(MyStocksError):
    """A stream that stood has to end.

    Attributes:
        code: For gRPC.
        resume: Serialized ResumeToken that goes on after what was delivered.
        retry_after_s: When to try again; None for as soon as wanted.
    """

    code: ClassVar[StatusCode] = StatusCode.UNAVAILABLE
    retry_after_s: float | None = None

    def __init__(self, message: str, resume: bytes = b"") -> None:
        super().__init__(message)
        self.resume = resume


class SlowReaderError(StreamEndedError):
    """More rows wait for this reader than its queue may hold."""

    code: ClassVar[StatusCode] = StatusCode.RESOURCE_EXHAUSTED
    retry_after_s = 1.0


class StreamCutError(StreamEndedError, UnavailableError):
    """The bridge stops, or its reader cannot go on."""

    retry_after_s = 0.5


class TopicReplacedError(StreamEndedError):
    """The topic was deleted, or its rows were deleted before the bridge had read them."""

    code: ClassVar[StatusCode] = StatusCode.ABORTED
