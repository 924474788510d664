"""The sending half of a stream: what it has sent, and what became of it."""

from collections.abc import Callable, Sequence

from grpc_bridge.registry import StreamEntry
from mystocks.v1.realtime_pb2 import Acknowledgements, RefusedTick
from schemas.errors import MyStocksError

# A refusal is about 150 bytes; this many stay well below the smallest message limit.
_MAX_REFUSALS = 300
# Four numbers of at most ten bytes each.
_MAX_ACKNOWLEDGEMENTS = 1000

# A record that was sent twice, over a connection that broke, is in the log once; the broker then
# does not tell where.
UNKNOWN_OFFSET = -1


class TickRequest:
    """A request with ticks that is not acknowledged in full.

    Attributes:
        sender: The stream that it came from.
        number: The client's number.
        size: Bytes that count as waiting for the broker.
        records: Records with ticks of it that are not acknowledged.
    """

    __slots__ = ("number", "records", "sender", "size")

    def __init__(self, sender: "TickSender", number: int, size: int) -> None:
        self.sender = sender
        self.number = number
        self.size = size
        self.records = 0


class TickSender:
    """Collects acknowledgements and refusals of one stream for its next response.

    Args:
        entry: The stream in the registry.
        wake: Called when there is something to send, or the stream has to end.

    Attributes:
        outstanding_bytes: Of ticks that wait for the broker.
        first_offset: By partition, the first offset that was acknowledged.
        last_offset: By partition, the last one; `UNKNOWN_OFFSET` where the broker did not say.
        in_flight: By partition, how many records are not acknowledged yet.
        failure: Why the stream has to end, once it has to.
        on_symbols: Called with symbols that the stream sends for the first time, before the log
            has them; None where nobody wants to know.
    """

    def __init__(self, entry: StreamEntry, wake: Callable[[], None]) -> None:
        self.outstanding_bytes = 0
        self.first_offset: dict[int, int] = {}
        self.last_offset: dict[int, int] = {}
        self.in_flight: dict[int, int] = {}
        self.failure: MyStocksError | None = None
        self.on_symbols: Callable[[set[str]], None] | None = None
        self._entry = entry
        self._wake = wake
        self._pending: dict[TickRequest, None] = {}
        self._known: set[int] = set()
        self._generation = 0
        self._clear()
        self._refused: list[RefusedTick] = []
        self._refused_number: int | None = None

    def _clear(self) -> None:
        self._numbers: list[int] = []
        self._accepted: list[int] = []
        self._partitions: list[int] = []
        self._offsets: list[int] = []

    @property
    def unacknowledged(self) -> list[int]:
        """Numbers of requests that are not acknowledged in full, in the order they came."""
        return [request.number for request in self._pending]

    @property
    def idle(self) -> bool:
        """Whether nothing waits for the broker."""
        return not self._pending

    @property
    def has_news(self) -> bool:
        """Whether `take` would return something."""
        return self.unsent > 0

    @property
    def unsent(self) -> int:
        """Acknowledgements and refusals that wait for the reader."""
        return len(self._numbers) + len(self._refused)

    def receive(self, number: int, size: int) -> TickRequest:
        """A request has come in."""
        request = TickRequest(self, number, size)
        self._pending[request] = None
        self.outstanding_bytes += size
        return request

    def fresh_codes(self, codes: Sequence[int], generation: int) -> set[int]:
        """Returns codes of symbols that the stream has not sent before, and remembers them."""
        if generation != self._generation:
            self._generation = generation
            self._known = set()
        fresh = set(codes) - self._known
        self._known |= fresh
        return fresh

    def receive_ticks(self, count: int) -> None:
        """So many ticks were in a request."""
        self._entry.ticks_received += count

    def refuse(self, number: int, row: int, reason: str) -> None:
        """A tick broke a rule."""
        self._refused.append(RefusedTick(number=number, row=row, reason=reason))
        self._entry.ticks_refused += 1
        # Those of one request come one after the other.
        if number != self._refused_number:
            self._refused_number = number
            self._entry.errors += 1
        self._wake()

    def acknowledge(self, request: TickRequest, ticks: int, partition: int, offset: int) -> None:
        """Ticks of a request are in the log, as part of this record.

        Args:
            request: The request.
            ticks: How many of it.
            partition: Partition of the record.
            offset: Offset of the record, or `UNKNOWN_OFFSET`.
        """
        self._numbers.append(request.number)
        self._accepted.append(ticks)
        self._partitions.append(partition)
        self._offsets.append(offset)
        self._entry.ticks_acknowledged += ticks
        # Before an offset that is not known every block may hold the tick's row.
        self.first_offset.setdefault(partition, max(offset, 0))
        self.last_offset[partition] = offset
        self.in_flight[partition] -= 1
        request.records -= 1
        if not request.records:
            self.complete(request)
        self._wake()

    def complete(self, request: TickRequest) -> None:
        """Every tick of a request is in the log, or refused."""
        if self._pending.pop(request, request) is None:
            self.outstanding_bytes -= request.size

    def fail(self, error: MyStocksError) -> None:
        """The stream has to end: the first reason counts."""
        self.failure = self.failure or error
        self._wake()

    def release(self, request: TickRequest) -> None:
        """A request failed: its bytes wait no longer, and it stays unacknowledged."""
        self.outstanding_bytes -= request.size
        request.size = 0

    def take(self) -> Acknowledgements:
        """Returns what has come together, as much as fits into a response."""
        count = min(len(self._numbers), _MAX_ACKNOWLEDGEMENTS)
        taken = Acknowledgements(
            number=self._numbers[:count],
            accepted=self._accepted[:count],
            partition=self._partitions[:count],
            offset=self._offsets[:count],
            refused=self._refused[:_MAX_REFUSALS],
        )
        if count == len(self._numbers):
            self._clear()
        else:
            del self._numbers[:count], self._accepted[:count]
            del self._partitions[:count], self._offsets[:count]
        if self._refused:
            del self._refused[:_MAX_REFUSALS]
        return taken
