"""Errors of the client library."""

from schemas.errors import MyStocksError, UnavailableError


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
