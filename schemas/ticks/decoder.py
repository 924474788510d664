"""Messages of a partition to columns of ticks, in one call and without an object per tick."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.processing import Refusal
from schemas.ticks.columns import ColumnBuffers, Int64Array, TickColumns
from schemas.ticks.compiled import PADDING
from schemas.ticks.kinds import OTHER, kind_of
from schemas.ticks.odd_messages import OddMessages
from schemas.ticks.rules import MAX_AHEAD_NS
from schemas.ticks.run import DONE, NEXT, NO_LIMIT, ROWS, STATUS, STOPPED_GROW, decode_run
from schemas.ticks.symbol_table import SymbolTable

_PADDING = bytes(PADDING)
# No acceptable tick takes fewer bytes on the compiled path: Arrow index, time and price.
_MIN_TICK_BYTES = 20
# Arrow messages with a larger dictionary take the library path.
_MAX_DICTIONARY = 1 << 16
# Later record timestamps than this allow every event time.
_MAX_TIMESTAMP_MS = (int(NO_LIMIT) - MAX_AHEAD_NS) // 1_000_000


class JoinedValues(Sequence[bytes | None]):
    """Record values that lie in one buffer already, so that no decoder has to join them.

    Attributes:
        buffer: All values one after the other and `PADDING` bytes, uint8; a missing value is empty.
        starts: Where each begins and the last one ends, int64 [n + 1].
    """

    def __init__(self, buffer: NDArray[np.uint8], starts: Int64Array) -> None:
        self.buffer = buffer
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts) - 1


class TickDecoder:
    """Decodes the values of tick records, in all three encodings mixed freely.

    Ordinary messages take a compiled path; the others are read by orjson, protobuf or pyarrow,
    with the same result for the same bytes. No input raises. Buffers are kept between calls, so an
    instance serves one thread.
    """

    def __init__(self) -> None:
        self._buffers = ColumnBuffers()
        self._odd = OddMessages(self._buffers)
        self._result = np.zeros(3, np.int64)
        self._scratch = np.empty(_MAX_DICTIONARY, np.int32)

    def decode(
        self,
        values: Sequence[bytes | None],
        content_types: Sequence[str | None] | None,
        timestamps_ms: Int64Array | None,
        symbols: SymbolTable,
        only_rows: Mapping[int, frozenset[int]] | None = None,
    ) -> tuple[TickColumns, list[Refusal]]:
        """Decodes messages into columns.

        Args:
            values: Record values; None is a record without one.
            content_types: The records' content-type headers, None where absent; None in place of
                the sequence says that no record has one.
            timestamps_ms: int64, record timestamps in milliseconds, -1 where unknown.
            symbols: Gives codes to symbols; new ones are added.
            only_rows: By message: the positions of the ticks to take, where not all are wanted.

        Returns:
            The accepted ticks, as views that the next call overwrites, and the refusals in message
            order, at most one per message.
        """
        count = len(values)
        joined, starts = _join(values)
        kinds = self._kinds(count, content_types, only_rows)
        latest = latest_event_times(count, timestamps_ms)
        buf = np.frombuffer(joined, np.uint8)
        buffers, result, odd = self._buffers, self._result, self._odd
        buffers.reserve(len(joined) // _MIN_TICK_BYTES + 2, 0)
        odd.begin(symbols)
        shapes = (odd.shapes.templates, odd.shapes.masks, odd.shapes.info)
        k = rows = 0
        while k < count:
            decode_run(
                buf,
                starts,
                kinds,
                latest,
                k,
                rows,
                buffers.arrays,
                symbols.arrays,
                shapes,
                self._scratch,
                result,
            )
            k, rows = int(result[NEXT]), int(result[ROWS])
            if result[STATUS] == DONE:
                break
            if result[STATUS] == STOPPED_GROW:
                needed = rows + int(starts[-1] - starts[k]) // _MIN_TICK_BYTES + 2
                if needed > buffers.capacity:
                    buffers.reserve(needed, rows)
                else:
                    symbols.grow()
                continue
            symbols.sync()
            rows = odd.add(
                k,
                values[k],
                joined[starts[k] : starts[k + 1]],
                content_types[k] if content_types is not None else None,
                int(latest[k]),
                only_rows.get(k) if only_rows is not None else None,
                rows,
            )
            k += 1
        symbols.sync()
        return buffers.columns(rows), odd.refusals

    def warm_up(self) -> None:
        """Compiles or loads every path, so that the first batch is as fast as the others."""
        from schemas.ticks.encode import encode_batch, encode_json

        columns: dict[str, Any] = {
            "symbols": ["A", "B"],
            "event_times_ns": [1_700_000_000_000_000_000] * 2,
            "prices": [1.5, 2.5],
        }
        optional: dict[str, Any] = {
            name: [1.0, None] for name in ("sizes", "bids", "asks", "volumes", "amounts")
        }
        values = [
            encode(**columns, **more)
            for encode in (encode_json, encode_batch)
            for more in ({}, optional | {"sequences": [1, None]})
        ]
        values += [_arrow_sample(valid=None), _arrow_sample(valid=pa.py_buffer(b"\x01"))]
        self.decode([*values, b"", None], None, None, SymbolTable(4))
        table = SymbolTable(2000)
        for i in range(1000):
            table.intern(str(i))
        self.decode(values, None, np.full(len(values), -1, np.int64), table)

    @staticmethod
    def _kinds(
        count: int,
        content_types: Sequence[str | None] | None,
        only_rows: Mapping[int, frozenset[int]] | None,
    ) -> NDArray[np.uint8]:
        if content_types is None:
            kinds = np.zeros(count, np.uint8)
        else:
            kinds = np.fromiter(map(kind_of, content_types), np.uint8, count)
        for k in only_rows or ():
            kinds[k] = OTHER
        return kinds


def latest_event_times(count: int, timestamps_ms: Int64Array | None) -> Int64Array:
    """Returns the largest event time that each record's timestamp allows.

    Args:
        count: Number of records.
        timestamps_ms: int64 [count], milliseconds, -1 where unknown; None knows none.
    """
    if timestamps_ms is None:
        return np.full(count, NO_LIMIT, np.int64)
    known = np.minimum(timestamps_ms, _MAX_TIMESTAMP_MS) * 1_000_000 + MAX_AHEAD_NS
    return np.where(timestamps_ms < 0, NO_LIMIT, known)


def _join(values: Sequence[bytes | None]) -> tuple[memoryview, Int64Array]:
    """Returns all values in a row with padding behind, and where each begins."""
    if isinstance(values, JoinedValues):
        # Read-only as joined bytes are, or the compiled loop would be compiled for both.
        return values.buffer.data.toreadonly(), values.starts
    starts = np.zeros(len(values) + 1, np.int64)
    try:
        joined = b"".join([*values, _PADDING])  # type: ignore[list-item]
    except TypeError:
        return _join([value if value is not None else b"" for value in values])
    lengths: Iterable[int] = map(len, values)  # type: ignore[arg-type]
    np.cumsum(np.fromiter(lengths, np.int64, len(values)), out=starts[1:])
    return memoryview(joined), starts


def _arrow_sample(valid: Any) -> bytes:
    """Returns two ticks as Arrow; made of buffers, since `pa.array` would import pandas."""

    def column(kind: Any, values: NDArray[Any], mask: Any = None) -> Any:
        return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(values)])

    text = [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"A")]
    symbol = pa.DictionaryArray.from_arrays(
        column(pa.int32(), np.zeros(2, np.int32)),
        pa.Array.from_buffers(pa.string(), 1, text),
        safe=False,
    )
    prices = np.array([1.5, 2.5])
    columns = {
        "symbol": symbol,
        "event_time_ns": column(pa.int64(), np.full(2, 1_700_000_000_000_000_000)),
        "price": column(pa.float64(), prices),
        "size": column(pa.float64(), prices, valid),
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    sample: bytes = sink.getvalue().to_pybytes()
    return sample
