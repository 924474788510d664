"""Errors of the client library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from schemas.errors import InvalidInputError, MyStocksError, UnavailableError

if TYPE_CHECKING:
    from mystocks.sdk.tick import Tick


class DeliveryError(UnavailableError):
    """Ticks that were sent were not acknowledged by the broker.

    Attributes:
        failed: Number of ticks that were refused or timed out, over the producer's life.
        delivered: Number of ticks acknowledged, over the producer's life.
    """

    def __init__(self, message: str, *, failed: int, delivered: int) -> None:
        super().__init__(message)
        self.failed = failed
        self.delivered = delivered


class RowGapError(MyStocksError):
    """Rows between the last one read and the next one available are missing from the topic."""


class InvalidRequestError(InvalidInputError):
    """The bridge does not accept a request.

    Attributes:
        fields: What is wrong, by the field of the request; empty where it named none.
    """

    def __init__(self, message: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})


class NotFoundError(MyStocksError):
    """What a request asks for, for example a symbol or a feature set, does not exist."""


class PreconditionError(MyStocksError):
    """A request is in order and cannot be answered as things are, for example with too few rows."""


class OverloadedError(UnavailableError):
    """The bridge has too much to do, or a request asks for too much at once.

    Attributes:
        retry_after_s: When to try again; None where trying again does not help.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BridgeError(MyStocksError):
    """The bridge failed in a way that it should not, or does not know the call."""


class StreamInterruptedError(UnavailableError):
    """A stream of ticks ended before all of its ticks were acknowledged.

    Attributes:
        unacknowledged: Ticks that may or may not be in the log, in the order they were sent. Ticks
            with a `sequence` can be sent again without harm where the reader drops duplicates.
        position: ``client.subscribe(start=position)`` goes on with the row after the last one
            received; empty where no row was received yet.
    """

    def __init__(self, message: str, unacknowledged: Sequence[Tick], position: str) -> None:
        super().__init__(message)
        self.unacknowledged = unacknowledged
        self.position = position


class MissingLibraryError(MyStocksError, ImportError):
    """A library that is needed only here is not installed."""
