"""Messages of ticks on their way into the log: checked by the rules, put together by partition."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schemas.partitioner import partition_for
from schemas.ticks.columns import (
    CODE,
    EVENT_TIME,
    MESSAGE,
    ROW,
    ColumnBuffers,
    Int32Array,
    Int64Array,
)
from schemas.ticks.compiled import PADDING
from schemas.ticks.encode import encode_batch
from schemas.ticks.library import MalformedMessageError, TickFields, parse_protobuf, protobuf_ticks
from schemas.ticks.rules import tick_problem
from schemas.ticks.run import DONE, NEXT, ROWS, STATUS, STOPPED_ODD
from schemas.ticks.split_fast import (
    BEGIN,
    BYTES_END,
    END,
    LEFT_OUT,
    NEWEST,
    ONLY_CODE,
    PARTITION,
    RECORD_FIELDS,
    RUN_MESSAGE,
    RUN_TICKS,
    RUNS_END,
    UNDECIDED,
    gather,
    scan_batches,
)
from schemas.ticks.symbol_table import SymbolTable

_PADDING = bytes(PADDING)
# Tag, length and nothing else.
_MIN_TICK_BYTES = 2
_USUAL_TICK_BYTES = 24
# A library takes some microseconds for each tick that the compiled rules do not take.
_MAX_ODD_TICKS = 10_000
# Far more than all fields take; what is larger has unknown fields that nobody would read.
_MAX_TICK_BYTES = 4096
# A table is begun anew when it has this many symbols, so that a client who makes up symbols does
# not take memory for good: about 100 bytes each.
_MAX_SYMBOLS = 500_000
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TickRecord:
    """Ticks of one partition, as one record.

    Attributes:
        partition: By murmur2 of the symbol.
        value: A protobuf `TickBatch`.
        symbol: The only symbol in it, or None where there are several.
        newest_ns: Newest event time in it.
        runs: (index of a message, how many ticks of it), in the order of the ticks.
    """

    partition: int
    value: bytes
    symbol: str | None
    newest_ns: int
    runs: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SplitTicks:
    """What became of some messages.

    Attributes:
        records: To be written.
        refused: (index of the message, position of the tick in it, what was expected and seen).
        malformed: By index of the message: why it is no TickBatch. Nothing of it is in `records`.
        ticks: By message: how many ticks it holds, int64 [messages].
        accepted: By message: how many of them are in `records`, int64 [messages].
        code: Of each of these, in the order of the messages, int32.
    """

    records: list[TickRecord]
    refused: list[tuple[int, int, str]]
    malformed: dict[int, str]
    ticks: Int64Array
    accepted: Int64Array
    code: Int32Array


class TickSplitter:
    """Sorts the ticks of many messages into records of one partition each.

    Buffers are kept between calls, so an instance serves one thread.

    Args:
        partitions: Of the topic.
        max_record_bytes: Of the value of one record.

    Attributes:
        generation: Codes of one generation are comparable.
    """

    def __init__(self, partitions: int, max_record_bytes: int) -> None:
        self.generation = 0
        self._partitions = partitions
        self._max_record_bytes = max_record_bytes
        self._buffers = ColumnBuffers()
        self._spans: Int64Array = np.empty((2, self._buffers.capacity), np.int64)
        self._order: Int32Array = np.empty(self._buffers.capacity, np.int32)
        self._runs: Int32Array = np.empty((2, self._buffers.capacity), np.int32)
        self._records: Int64Array = np.empty((RECORD_FIELDS, partitions + 16), np.int64)
        self._out = np.empty(64 * 1024, np.uint8)
        self._result = np.zeros(3, np.int64)
        self._begin_table()

    def warm_up(self) -> None:
        """Compiles or loads what `split` uses."""
        time = 1_700_000_000_000_000_000
        self.split([encode_batch(["A", "B"], [time, time], [1.0, 2.0]), b"\x0a\x00"])
        self._begin_table()

    def symbol(self, code: int) -> str:
        """Returns the symbol with this code in the current generation."""
        return self._table.names[code]

    def split(self, values: Sequence[bytes]) -> SplitTicks:
        """Sorts messages.

        Args:
            values: Serialized `TickBatch` messages.
        """
        if len(self._table) > _MAX_SYMBOLS:
            self._begin_table()
        malformed: dict[int, str] = {}
        values = list(values)
        joined, rows = self._scan(values, malformed)
        refused = self._decide(joined, rows, malformed)
        self._assign_partitions()
        ints = self._buffers.ints
        taken = slice(0, rows)
        code, message = ints[CODE, taken], ints[MESSAGE, taken]
        ticks = np.bincount(message, minlength=len(values))
        accepted = ticks
        if refused or malformed:
            kept = code >= 0
            code = code[kept]
            accepted = np.bincount(message[kept], minlength=len(values))
        return SplitTicks(
            self._gather(joined, rows), refused, malformed, ticks, accepted, code.copy()
        )

    def _begin_table(self) -> None:
        self.generation += 1
        self._table = SymbolTable(_UNLIMITED)
        self._partition_of: Int32Array = np.empty(1024, np.int32)
        self._assigned = 0

    def _scan(self, values: list[bytes], malformed: dict[int, str]) -> tuple[bytes, int]:
        """Finds all ticks; returns the joined messages and the number of ticks."""
        joined, rows, odd = self._scan_once(values)
        if not odd:
            return joined, rows
        # They have something else than ticks in them: what a library makes of it is scanned.
        for k in odd:
            value, values[k] = values[k], b""
            try:
                batch = parse_protobuf(value)
            except MalformedMessageError as error:
                malformed[k] = str(error)
                continue
            batch.DiscardUnknownFields()  # type: ignore[attr-defined, unused-ignore]
            values[k] = batch.SerializeToString()
        joined, rows, _ = self._scan_once(values)
        return joined, rows

    def _scan_once(self, values: Sequence[bytes]) -> tuple[bytes, int, list[int]]:
        joined, starts = _join(values)
        self._reserve(len(joined) // _USUAL_TICK_BYTES + 1, 0)
        result, k, rows = self._result, 0, 0
        odd: list[int] = []
        buf = np.frombuffer(joined, np.uint8)
        while True:
            scan_batches(
                buf,
                starts,
                k,
                rows,
                self._buffers.arrays,
                self._table.arrays,
                self._spans,
                result,
            )
            k, rows = int(result[NEXT]), int(result[ROWS])
            if result[STATUS] == DONE:
                self._table.sync()
                return joined, rows, odd
            if result[STATUS] == STOPPED_ODD:
                odd.append(k)
                k += 1
                continue
            needed = rows + int(starts[k + 1] - starts[k]) // _MIN_TICK_BYTES + 1
            if needed > self._buffers.capacity:
                self._reserve(needed, rows)
            else:
                self._table.sync()
                self._table.grow()

    def _reserve(self, capacity: int, used: int) -> None:
        if capacity <= self._buffers.capacity:
            return
        self._buffers.reserve(capacity, used)
        capacity = self._buffers.capacity
        spans = np.empty((2, capacity), np.int64)
        spans[:, :used] = self._spans[:, :used]
        self._spans = spans
        self._order = np.empty(capacity, np.int32)
        self._runs = np.empty((2, capacity), np.int32)

    def _decide(
        self, joined: bytes, rows: int, malformed: dict[int, str]
    ) -> list[tuple[int, int, str]]:
        """Looks at the ticks that the compiled rules did not take."""
        ints, longs = self._buffers.ints, self._buffers.longs
        codes = ints[CODE, :rows]
        if not rows or int(codes.min()) >= 0:
            return []
        refused = []
        undecided = np.flatnonzero(codes == UNDECIDED)
        counts = np.bincount(ints[MESSAGE, undecided])
        for k in np.flatnonzero(counts > _MAX_ODD_TICKS).tolist():
            malformed[k] = (
                f"{counts[k]} ticks of the batch break a rule or have unknown fields, expected at "
                f"most {_MAX_ODD_TICKS}"
            )
        if malformed:
            undecided = undecided[~np.isin(ints[MESSAGE, undecided], list(malformed))]
        for i in undecided.tolist():
            k, row = int(ints[MESSAGE, i]), int(ints[ROW, i])
            raw = joined[self._spans[BEGIN, i] : self._spans[END, i]]
            try:
                tick = next(protobuf_ticks(parse_protobuf(raw)))
            except MalformedMessageError as error:
                malformed.setdefault(k, f"tick {row}: {error}")
                continue
            problem = tick if isinstance(tick, str) else tick_problem(*tick) or _size_problem(raw)
            if isinstance(tick, TickFields) and problem is None:
                ints[CODE, i] = self._table.intern(tick.symbol)
                longs[EVENT_TIME, i] = tick.event_time
                continue
            ints[CODE, i] = LEFT_OUT
            refused.append((k, row, problem or ""))
        if malformed:
            bad = np.isin(ints[MESSAGE, :rows], list(malformed))
            codes[bad] = LEFT_OUT
            refused = [entry for entry in refused if entry[0] not in malformed]
        return refused

    def _assign_partitions(self) -> None:
        names = self._table.names
        count = len(names)
        if count == self._assigned:
            return
        if count > len(self._partition_of):
            grown = np.empty(max(count, 2 * len(self._partition_of)), np.int32)
            grown[: self._assigned] = self._partition_of[: self._assigned]
            self._partition_of = grown
        for code in range(self._assigned, count):
            self._partition_of[code] = partition_for(names[code], self._partitions)
        self._assigned = count

    def _gather(self, joined: bytes, rows: int) -> list[TickRecord]:
        if len(self._out) < len(joined):
            self._out = np.empty(len(joined), np.uint8)
        # Two records in a row hold more than one of the largest size, unless a partition ends.
        room = self._partitions + 2 * (len(joined) // self._max_record_bytes) + 2
        if self._records.shape[1] < room:
            self._records = np.empty((RECORD_FIELDS, room), np.int64)
        count = gather(
            np.frombuffer(joined, np.uint8),
            rows,
            self._buffers.longs,
            self._buffers.ints,
            self._spans,
            self._partition_of,
            self._partitions,
            self._max_record_bytes,
            self._order,
            self._out,
            self._records,
            self._runs,
        )
        records, begin, first_run = [], 0, 0
        fields = self._records[:, :count].T.tolist()
        runs = self._runs[:, : fields[-1][RUNS_END]].T.tolist() if fields else []
        names = self._table.names
        for record in fields:
            end, last_run, code = record[BYTES_END], record[RUNS_END], record[ONLY_CODE]
            records.append(
                TickRecord(
                    record[PARTITION],
                    self._out[begin:end].tobytes(),
                    names[code] if code >= 0 else None,
                    record[NEWEST],
                    [(run[RUN_MESSAGE], run[RUN_TICKS]) for run in runs[first_run:last_run]],
                )
            )
            begin, first_run = end, last_run
        return records


def _join(values: Sequence[bytes]) -> tuple[bytes, Int64Array]:
    starts = np.zeros(len(values) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=starts[1:])
    return b"".join([*values, _PADDING]), starts


def _size_problem(raw: bytes) -> str | None:
    if len(raw) > _MAX_TICK_BYTES:
        return f"tick has {len(raw)} bytes, expected at most {_MAX_TICK_BYTES}"
    return None
