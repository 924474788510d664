"""Ticks of the past as they are in the log, paced by event time; nothing is computed or written."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grpc_bridge.fanout.wire import frame
from mystocks.v1.realtime_pb2 import ReplayMarketDataResponse
from mystocks.v1.realtime_pb2 import ReplayProgress as ProgressMessage
from schemas.processing import MessageBatch
from schemas.replay import ReplayRequest
from schemas.settings import Settings
from schemas.ticks.encode import encode_batch
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import reader
from streams.kafka.feature_positions import offsets_since, watermarks
from streams.kafka.replay.clock import EventClock
from streams.kafka.replay.control import ReplayControl
from streams.kafka.replay.driver import ReplayDriver, ReplayProgress, ReplayTopics
from streams.kafka.replay.lane import Lane
from streams.kafka.replay.plan import PartitionPlan
from streams.kafka.replay.reader import LogReader

if TYPE_CHECKING:
    from schemas.ticks import TickColumns

_TICKS_FIELD = ReplayMarketDataResponse.DESCRIPTOR.fields_by_name["ticks"].number
_BUFFER_BYTES = 8 * 1024**2
_PROGRESS_EVERY_S = 1.0
_TICKS_PER_RESPONSE = 5000


class TickReading:
    """One call.

    Args:
        settings: Where the ticks are.
        request: Which.
        hand_over: Takes serialized responses; waits while the client is slow.
        stopping: Set when the client is gone.
    """

    def __init__(
        self,
        settings: Settings,
        request: ReplayRequest,
        hand_over: Callable[[bytes], None],
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._request = request
        self._hand_over = hand_over
        self._stopping = stopping

    def run(self) -> None:
        """Hands over the ticks of the range, in event-time order over all partitions if paced.

        Raises:
            UnavailableError: The broker does not answer.
        """
        from schemas.ticks import TickDecoder

        request, source = self._request, self._settings.features.source_topic
        partitions = partition_count(admin_client(self._settings), source)
        consumer = reader(self._settings, f"bridge-{request.run}", buffer_bytes=_BUFFER_BYTES)
        try:
            marks = watermarks(consumer, source, range(partitions))
            since = offsets_since(consumer, source, marks, request.start_ns)
            plans = {
                p: PartitionPlan(p, since[p], since[p], high, "", "", "")
                for p, (_, high) in marks.items()
            }
            decoder = TickDecoder()
            most = self._settings.features.max_symbols
            # What the feature set has taken comes once, though it was sent again for another group.
            group = self._settings.features_group
            lanes = {
                p: Lane(plan, _TickTask(decoder, request, most), group) for p, plan in plans.items()
            }
            spans = {p: (plan.begin, plan.end) for p, plan in plans.items()}
            control = ReplayControl()
            sink = _Responses(self._hand_over, self._stopping, control)
            outcome = ReplayDriver(
                ReplayTopics(source, "", "", ""),
                lanes,
                reader=LogReader(consumer, source, spans),
                output=sink,
                group=None,
                clock=EventClock(request.speed),
                control=control,
                end_ns=request.end_ns,
                on_progress=sink.progress,
            ).run()
            if outcome == "finished":
                sink.end()
        finally:
            consumer.close()


class _Responses:
    """A `streams.kafka.output.Output` that is the client's stream."""

    visible_when_settled = True
    rest_s = 0.0

    def __init__(
        self,
        hand_over: Callable[[bytes], None],
        stopping: threading.Event,
        control: ReplayControl,
    ) -> None:
        self.open = False
        self._hand_over = hand_over
        self._stopping = stopping
        self._control = control
        self._newest_ns = 0
        self._sent = 0
        self._since = 0.0

    def start(self) -> None:
        """Does nothing."""

    def begin(self) -> None:
        """Begins to collect records."""
        self.open = True

    def produce(
        self,
        topic: str,  # noqa: ARG002
        value: bytes | None,
        partition: int,  # noqa: ARG002
        *,
        key: bytes | None = None,  # noqa: ARG002
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Hands over a response."""
        self._hand_over(value or b"")
        self._sent += int(dict(headers)["rows"])
        self._newest_ns = max(self._newest_ns, timestamp_ms * 1_000_000)
        self._look()

    def settle(self) -> None:
        """Does nothing."""

    def commit(self, offsets: Any, group: Any) -> None:  # noqa: ARG002
        """Does nothing: who is gone begins again."""
        self.open = False

    def abort(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def progress(self, progress: ReplayProgress) -> None:
        """Tells the client how far it is, about once a second."""
        self._look()
        now = time.monotonic()
        if now - self._since >= _PROGRESS_EVERY_S:
            self._since = now
            self._tell(progress.fraction)

    def end(self) -> None:
        """Tells that everything was sent."""
        self._tell(1.0)

    def _tell(self, fraction: float) -> None:
        message = ProgressMessage(
            event_time_ns=self._newest_ns, ticks=self._sent, fraction=fraction
        )
        self._hand_over(ReplayMarketDataResponse(progress=message).SerializeToString())

    def _look(self) -> None:
        if self._stopping.is_set():
            self._control.release()


class _TickTask:
    """A `streams.kafka.replay.ports.ReplayTask` whose rows are the ticks themselves."""

    rows_per_record = _TICKS_PER_RESPONSE

    def __init__(self, decoder: Any, request: ReplayRequest, max_symbols: int) -> None:
        from schemas.ticks import SymbolTable

        self.tick_times = np.empty(0, np.int64)
        self.tick_messages: NDArray[Any] = np.empty(0, np.int64)
        self._decoder = decoder
        self._symbols = SymbolTable(max_symbols)
        self._request = request
        self._wanted = frozenset(request.symbols)

    def replay(self, batch: MessageBatch, first_row: int) -> int:  # noqa: ARG002
        """Does nothing: ticks have no state."""
        return 0

    def finish(self) -> None:
        """Does nothing: rows come with their ticks."""

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Does nothing: ticks have no state."""

    def select(self, batch: MessageBatch) -> "_Ticks | None":
        """Returns the ticks of the range and of the wanted symbols."""
        ticks, _ = self._decoder.decode(
            batch.values, batch.content_types, batch.timestamps_ms, self._symbols
        )
        self.tick_times, self.tick_messages = ticks.event_time, ticks.message
        inside = ticks.event_time >= self._request.start_ns
        if self._request.end_ns is not None:
            inside &= ticks.event_time < self._request.end_ns
        if self._wanted:
            names = np.array([name in self._wanted for name in self._symbols.names])
            inside &= names[ticks.code]
        rows = np.flatnonzero(inside)
        if not len(rows):
            return None
        return _Ticks(ticks, rows, batch.offsets[ticks.message[rows]], self._symbols.names)


class _Ticks:
    """Ticks in memory of their own; see `streams.kafka.replay.ports.SelectedRows`."""

    def __init__(
        self,
        ticks: "TickColumns",
        rows: NDArray[np.intp],
        offsets: NDArray[np.int64],
        names: Sequence[str],
    ) -> None:
        self.event_time = ticks.event_time[rows]
        self.offsets = offsets
        self._symbols = [names[code] for code in ticks.code[rows].tolist()]
        self._columns = {
            name: getattr(ticks, field)[rows]
            for name, field in (
                ("sizes", "size"), ("bids", "bid"), ("asks", "ask"),
                ("volumes", "volume"), ("amounts", "amount"),
            )
        }  # fmt: skip
        self._prices = ticks.price[rows]
        self._sequences = ticks.sequence[rows]

    def keep(self) -> "_Ticks":
        """Returns itself: everything was copied."""
        return self

    def encode(self, low: int, high: int) -> bytes:
        """Returns a serialized response with the ticks [low, high)."""
        columns = {name: values[low:high].tolist() for name, values in self._columns.items()}
        batch = encode_batch(
            self._symbols[low:high],
            self.event_time[low:high].tolist(),
            self._prices[low:high].tolist(),
            sequences=[n if n >= 0 else None for n in self._sequences[low:high].tolist()],
            **columns,
        )
        return frame(_TICKS_FIELD, batch)
