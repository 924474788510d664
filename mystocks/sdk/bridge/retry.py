"""Trying again: exponential backoff with jitter, within a deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from mystocks.sdk.bridge.rpc_errors import is_passing, retry_after_s, to_error
from schemas.errors import MyStocksError

_Answer = TypeVar("_Answer")

FIRST_DELAY_S = 0.05
MAX_DELAY_S = 2.0
# An attempt with less time than this left would only replace a telling error by a time-out.
_LEAST_ATTEMPT_S = 0.05


class Backoff:
    """Delays that double, each cut by chance to between half and all of it.

    Args:
        budget_s: How long failures may go on before it is time to give up.
    """

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._delay_s = FIRST_DELAY_S
        self._since: float | None = None

    def succeeded(self) -> None:
        """Starts anew after a success."""
        self._since, self._delay_s = None, FIRST_DELAY_S

    def failed(self, asked_s: float | None = None) -> float | None:
        """Returns how long to wait before the next attempt; None to give up.

        Args:
            asked_s: The wait that the server asks for, or None.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        # Clients that were cut off together should not come back together.
        delay = self._delay_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._delay_s = min(2 * self._delay_s, MAX_DELAY_S)
        delay = max(delay, asked_s or 0.0)
        return delay if now + delay < self._since + self._budget_s else None


async def with_retries(
    attempt: Callable[[float], Awaitable[_Answer]], timeout_s: float, where: str
) -> _Answer:
    """Returns the answer of an idempotent call, which may be tried several times.

    Args:
        attempt: Makes the call; gets the seconds that are left.
        timeout_s: For all attempts together.
        where: Names the call and the server in an error.

    Raises:
        MyStocksError: No attempt succeeded; the error of the last one that was answered.
    """
    deadline = time.monotonic() + timeout_s
    backoff = Backoff(timeout_s)
    last: MyStocksError | None = None
    while True:
        try:
            return await attempt(deadline - time.monotonic())
        except grpc.aio.AioRpcError as error:
            timed_out = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if last is not None and timed_out:
                raise last from None
            last = to_error(error, where)
            delay = backoff.failed(retry_after_s(error)) if is_passing(error) else None
        if delay is None or time.monotonic() + delay > deadline - _LEAST_ATTEMPT_S:
            raise last
        await asyncio.sleep(delay)
