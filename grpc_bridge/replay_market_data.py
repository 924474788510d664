"""`ReplayMarketData`: a command for role `replay`, and the rows that it writes, as they come."""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from grpc_bridge.replay_reading import ReplayReading
from grpc_bridge.replay_ticks import TickReading
from mystocks.v1 import realtime_pb2
from schemas.replay import ReplayRequest
from schemas.requests import Code, RequestFailedError
from schemas.settings import Settings
from schemas.ticks.rules import MIN_EVENT_TIME_NS

# Each has a thread and a reader of its own.
_MOST_REPLAYS = 32
# Responses of up to a record that wait for the client; after that the reader waits.
_MOST_WAITING = 8
_FIELDS = {"start_ns": "range.start_ns", "end_ns": "range.end_ns"}


class ReplayMarketData:
    """The method's handler.

    Args:
        settings: Servers, and the feature set where a request names none.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(_MOST_REPLAYS, thread_name_prefix="replay")
        self._room = threading.BoundedSemaphore(_MOST_REPLAYS)

    def close(self) -> None:
        """Lets the threads end; streams were ended before."""
        self._threads.shutdown(wait=True)

    async def responses(
        self, message: realtime_pb2.ReplayMarketDataRequest
    ) -> AsyncGenerator[bytes, None]:
        """Yields serialized responses; whoever stops before their end closes the generator.

        Raises:
            RequestFailedError: A field is not acceptable, the replay failed or was cancelled, or
                too many run here.
            UnavailableError: No role `replay` runs, or the broker does not answer.
        """
        request = _request(message)
        if not self._room.acquire(blocking=False):
            raise RequestFailedError(
                Code.RESOURCE_EXHAUSTED,
                f"expected at most {_MOST_REPLAYS} replays at a bridge, was one more; try again "
                "later",
                retry_after_s=1.0,
            )
        waiting: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)
        stopping = threading.Event()
        loop = asyncio.get_running_loop()

        def hand_over(response: bytes | None) -> None:
            """Waits for room: the reader is never further ahead of the client than the queue."""
            put = asyncio.run_coroutine_threadsafe(waiting.put(response), loop)
            while not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    put.result(0.1)
                    return
            put.cancel()

        if _is_computed(message):
            reading: ReplayReading | TickReading = ReplayReading(
                self._settings, request, hand_over, stopping, keep=bool(message.run)
            )
        else:
            reading = TickReading(self._settings, request, hand_over, stopping)

        def run() -> None:
            try:
                reading.run()
            finally:
                self._room.release()
                hand_over(None)

        thread = loop.run_in_executor(self._threads, run)
        try:
            while (response := await waiting.get()) is not None:
                yield response
            await thread
        finally:
            stopping.set()


def _is_computed(message: realtime_pb2.ReplayMarketDataRequest) -> bool:
    """Whether role `replay` makes the rows; ticks alone are read from the log as they are."""
    return bool(message.indicators or message.feature_set or message.bars)


def _request(message: realtime_pb2.ReplayMarketDataRequest) -> ReplayRequest:
    """Returns what is asked for.

    Raises:
        RequestFailedError: A field is not acceptable.
    """
    if message.indicators and message.feature_set:
        raise RequestFailedError(
            Code.INVALID_ARGUMENT,
            "expected indicators or the name of a feature set, was both (feature_set); leave one "
            "out",
            field="feature_set",
        )
    span = message.range
    try:
        return ReplayRequest(
            run=message.run or f"call-{uuid.uuid4().hex[:16]}",
            start_ns=span.start_ns if span.HasField("start_ns") else MIN_EVENT_TIME_NS,
            end_ns=span.end_ns if span.HasField("end_ns") else None,
            feature_set=message.feature_set,
            indicators=tuple(message.indicators),
            profile=message.profile,
            symbols=tuple(message.symbols),
            speed=message.speed or None,
            cold=message.cold,
            bars=message.bars,
        )
    except RequestFailedError as error:
        raise as_of_call(error) from None


def as_of_call(error: RequestFailedError) -> RequestFailedError:
    """Returns an error that names the field of the call instead of that of the command."""
    return RequestFailedError(
        error.code, error.message, field=_FIELDS.get(error.field, error.field)
    )
