"""The streams that are open: counted, bounded, described, and ended when nothing moves."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from grpc_bridge.errors import StreamInterruptedError
from grpc_bridge.metrics import BridgeMetrics
from mystocks.v1 import realtime_pb2
from schemas.errors import MyStocksError
from schemas.requests import Code, RequestFailedError
from schemas.settings import GrpcSettings

# After which time a client may try again where all streams are taken.
_RETRY_AFTER_S = 1.0
# How often idle streams are looked for, as a part of the idle time-out, and at most.
_CHECKS_PER_TIMEOUT = 4
_CHECK_AT_MOST_EVERY_S = 1.0


class Progress(Protocol):
    """What the rows of a stream tell of themselves."""

    @property
    def queued_bytes(self) -> int:
        """Encoded rows that wait for the reader."""

    @property
    def lag_rows(self) -> int:
        """Rows that wait for the reader."""

    @property
    def rows_sent(self) -> int:
        """Rows that were handed to gRPC."""

    @property
    def token(self) -> bytes:
        """Serialized ResumeToken that goes on after what was sent; empty if there is none."""


class StreamEntry:
    """One open stream.

    Attributes:
        stream_id: Unique among all servers.
        ticks_received: Ticks read from it, refused ones included.
        ticks_acknowledged: Ticks that are in the log.
        ticks_refused: Ticks that a rule refused.
        errors: Requests with ticks that a rule refused.
        progress: Set by the stream's handler once there are rows to tell of.
        ask_to_end: Ends the stream with an error after what is in hand; None where there is
            nothing to wait for.
        unacknowledged: Returns the numbers of requests that were not acknowledged in full.
    """

    def __init__(self, stream_id: str, peer: str, method: str) -> None:
        self.stream_id = stream_id
        self.peer = peer
        self.method = method
        self.ticks_received = 0
        self.ticks_acknowledged = 0
        self.ticks_refused = 0
        self.errors = 0
        self.progress: Progress | None = None
        self.ask_to_end: Callable[[MyStocksError], None] | None = None
        self.unacknowledged: Callable[[], list[int]] = list
        self.end_reason: MyStocksError | None = None
        self.last_activity = time.monotonic()
        self._started_ns = time.time_ns()
        self._task = asyncio.current_task()

    def touch(self) -> None:
        """Something moved on the stream."""
        self.last_activity = time.monotonic()

    def end(self, error: MyStocksError) -> None:
        """Ends the stream from outside: its handler is cancelled, and the client gets `error`."""
        if self.end_reason is None and self._task is not None:
            self.end_reason = error
            self._task.cancel()

    def stats(self) -> realtime_pb2.StreamStats:
        """Returns the figures of the stream."""
        silent_ns = int((time.monotonic() - self.last_activity) * 1e9)
        return realtime_pb2.StreamStats(
            stream_id=self.stream_id,
            peer=self.peer,
            method=self.method,
            started_ns=self._started_ns,
            last_activity_ns=time.time_ns() - silent_ns,
            ticks_received=self.ticks_received,
            ticks_acknowledged=self.ticks_acknowledged,
            ticks_refused=self.ticks_refused,
            rows_sent=self.progress.rows_sent if self.progress else 0,
            errors=self.errors,
            queued_bytes=self.progress.queued_bytes if self.progress else 0,
            lag_rows=self.progress.lag_rows if self.progress else 0,
        )

    def interruption(self, code: Code, message: str) -> StreamInterruptedError:
        """Returns an error that also says how to go on after this stream."""
        return StreamInterruptedError(
            code,
            message,
            resume=self.progress.token if self.progress else b"",
            unacknowledged=self.unacknowledged(),
        )


class StreamRegistry:
    """All open streams of this process.

    Args:
        settings: How many there may be, and how long one may be silent.
        metrics: Told how many there are.
    """

    def __init__(self, settings: GrpcSettings, metrics: BridgeMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._entries: dict[str, StreamEntry] = {}
        # Unique among processes without a look-up per stream.
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._closing = False

    def __len__(self) -> int:
        return len(self._entries)

    @contextlib.asynccontextmanager
    async def stream(self, peer: str, method: str) -> AsyncIterator[StreamEntry]:
        """Registers the stream that the current task handles, while the context is open.

        Args:
            peer: Address of the client.
            method: Name of the method.

        Raises:
            RequestFailedError: Too many streams are open, or the server is being stopped.
            MyStocksError: What `StreamEntry.end` was given.
        """
        if self._closing:
            raise _shutting_down_error()
        if len(self._entries) >= self._settings.max_streams:
            raise RequestFailedError(
                Code.RESOURCE_EXHAUSTED,
                f"expected at most {self._settings.max_streams} open streams, was one more; try "
                "again later, or raise MYSTOCKS_GRPC__MAX_STREAMS",
                retry_after_s=_RETRY_AFTER_S,
            )
        entry = StreamEntry(f"{self._prefix}-{next(self._numbers)}", peer, method)
        self._entries[entry.stream_id] = entry
        self._metrics.streams(len(self._entries))
        try:
            yield entry
        except asyncio.CancelledError:
            if entry.end_reason is None:
                raise
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            raise entry.end_reason from None
        finally:
            del self._entries[entry.stream_id]
            self._metrics.streams(len(self._entries))

    def stats(self) -> list[realtime_pb2.StreamStats]:
        """Returns the figures of every stream, the oldest first."""
        return [entry.stats() for entry in self._entries.values()]

    async def watch(self) -> None:
        """Ends streams on which nothing has moved for too long; runs until it is cancelled."""
        timeout_s = self._settings.idle_timeout_s
        while True:
            await asyncio.sleep(min(timeout_s / _CHECKS_PER_TIMEOUT, _CHECK_AT_MOST_EVERY_S))
            limit = time.monotonic() - timeout_s
            for entry in list(self._entries.values()):
                if entry.last_activity < limit:
                    entry.end(
                        entry.interruption(
                            Code.UNAVAILABLE,
                            f"expected something to move on the stream within {timeout_s:g} s, "
                            "nothing did (setting grpc.idle_timeout_s); open it again",
                        )
                    )

    def close(self) -> None:
        """Ends every stream and lets no other begin."""
        self._closing = True
        for entry in list(self._entries.values()):
            if entry.ask_to_end is not None:
                entry.ask_to_end(_shutting_down_error())
            else:
                entry.end(entry.interruption(Code.UNAVAILABLE, str(_shutting_down_error())))


def _shutting_down_error() -> RequestFailedError:
    return RequestFailedError(
        Code.UNAVAILABLE,
        "expected a running bridge, was being stopped; connect again",
        retry_after_s=_RETRY_AFTER_S,
    )
