"""The connection to a gRPC bridge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import grpc

from mystocks.sdk.bridge.retry import MAX_DELAY_S, with_retries
from mystocks.sdk.connection import bridge_address
from mystocks.v1.realtime_pb2_grpc import RealTimeServiceStub
from schemas.errors import InvalidInputError, UnavailableError
from schemas.settings import Settings

if TYPE_CHECKING:
    from mystocks.v1.realtime_pb2_grpc import RealTimeServiceAsyncStub  # only in the stub file

_Answer = TypeVar("_Answer")

_OPTIONS = (
    # Largest value of the bridge's own setting, grpc.max_message_bytes.
    ("grpc.max_receive_message_length", 256 * 1024**2),
    # A connection that carries nothing is probed, so that a peer that vanished is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", int(MAX_DELAY_S * 1000)),
    # Two clients of one process do not share a connection that one of them closes.
    ("grpc.use_local_subchannel_pool", 1),
)


class Bridge:
    """A channel to a bridge, opened on first use in the running event loop.

    Args:
        address: ``host:port``, or None for the one that settings or a local stack name.
        timeout_s: Longest time for a call with all its attempts, and for connecting.
        settings: Settings to use; None loads them from the environment.

    Raises:
        ConfigurationError: No bridge is known.
        InvalidInputError: An argument is not acceptable.
    """

    def __init__(self, address: str | None, timeout_s: float, settings: Settings | None) -> None:
        if not timeout_s > 0:
            raise InvalidInputError(
                f"expected more than 0, was {timeout_s} (timeout_s); correct it"
            )
        self.address = bridge_address(address, settings)
        self.timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._stub: RealTimeServiceAsyncStub | None = None
        self._closed = False

    @property
    def stub(self) -> RealTimeServiceAsyncStub:
        """The service's methods."""
        if self._closed:
            raise InvalidInputError("expected an open client, was closed; make a new one")
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
            self._stub = RealTimeServiceStub(self._channel)
        return self._stub

    async def connect(self, timeout_s: float | None = None) -> RealTimeServiceAsyncStub:
        """Returns the service's methods once the server has been reached.

        Args:
            timeout_s: Longest wait; None takes that of the client.

        Raises:
            UnavailableError: Nothing answers at the address.
        """
        stub = self.stub
        assert self._channel is not None
        wait = self.timeout_s if timeout_s is None else timeout_s
        try:
            await asyncio.wait_for(self._channel.channel_ready(), wait)
        except TimeoutError:
            raise UnavailableError(
                f"expected a gRPC bridge at {self.address}, none answered within {wait:.3g} s; "
                "check the address, or start a local stack with `mystocks up`"
            ) from None
        return stub

    async def call(
        self,
        method: str,
        attempt: Callable[[RealTimeServiceAsyncStub, float], Awaitable[_Answer]],
    ) -> _Answer:
        """Returns the answer of an idempotent call.

        Args:
            method: Names the call in errors.
            attempt: Makes the call; gets the service's methods and the seconds that are left.

        Raises:
            MyStocksError: No attempt succeeded in time, or the request is refused.
        """

        async def attempt_connected(left_s: float) -> _Answer:
            since = time.monotonic()
            stub = await self.connect(left_s)
            return await attempt(stub, left_s - (time.monotonic() - since))

        return await with_retries(attempt_connected, self.timeout_s, self.where(method))

    def where(self, method: str) -> str:
        """How an error names a call of this server."""
        return f"{method} at {self.address}"

    async def close(self) -> None:
        """Ends all calls."""
        self._closed = True
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()
