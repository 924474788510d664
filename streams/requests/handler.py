"""What a worker needs to know of the requests it answers."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from schemas.requests import RequestFailedError

Question = TypeVar("Question")


class RequestHandler(Protocol[Question]):
    """Turns the bytes of a request into the bytes of a reply; called from several threads."""

    def parse(self, value: bytes) -> Question:
        """Returns the request; raises `RequestFailedError` unless it is acceptable."""

    def is_slow(self, request: Question) -> bool:
        """Whether others should not wait for the request; it then gets a thread of its own."""

    def answer(self, request: Question, remaining_s: Callable[[], float]) -> bytes:
        """Returns the reply.

        Args:
            request: What `parse` returned.
            remaining_s: How long the requester still waits, in seconds.

        Raises:
            MyStocksError: The reply says so; a `RequestFailedError` with its code and field.
        """

    def failure(self, error: RequestFailedError) -> bytes:
        """Returns the reply that says why there is no answer."""
