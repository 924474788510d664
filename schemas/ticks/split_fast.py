"""TickBatch messages taken apart into their ticks, and these put together by partition, compiled.

A tick is moved as the bytes it came in; only what decides where it goes is read.
"""

import numpy as np

from schemas.ticks.columns import (
    CODE,
    EVENT_TIME,
    MESSAGE,
    ROW,
    ByteArray,
    ColumnArrays,
    Int32Array,
    Int64Array,
    TableArrays,
)
from schemas.ticks.compiled import GROW, ODD, Int, compiled
from schemas.ticks.protobuf_fast import parse_tick, varint
from schemas.ticks.run import DONE, NEXT, NO_LIMIT, ROWS, STATUS, STOPPED_GROW, STOPPED_ODD

_TICKS = 0x0A
# Code of a tick that the compiled rules do not take; a library decides.
UNDECIDED = -1
# Code of a tick that is left out.
LEFT_OUT = -2
# Rows of `spans`: where the bytes of a tick begin and end, its tag and length included.
BEGIN, END = range(2)
# Rows of `records`: partition, end of its bytes in `out`, end of its runs, newest event time,
# code of its only symbol or `UNDECIDED` where it has several.
PARTITION, BYTES_END, RUNS_END, NEWEST, ONLY_CODE = range(5)
RECORD_FIELDS = 5
# Rows of `runs`: message, ticks of it in the record.
RUN_MESSAGE, RUN_TICKS = range(2)


@compiled
def scan_batches(
    buf: ByteArray,
    starts: Int64Array,
    first: Int,
    n: Int,
    columns: ColumnArrays,
    table: TableArrays,
    spans: Int64Array,
    result: Int64Array,
) -> None:
    """Finds the ticks of messages from `first` on, into rows from `n` on.

    It stops at a message with something else than ticks in it, and where there is no more room.

    Args:
        buf: uint8, all messages joined, with padding.
        starts: int64[messages + 1], where each begins.
        first: Index of the first message.
        n: Rows so far.
        columns: Of `ColumnBuffers`; code is `UNDECIDED` where a library has to look at the tick.
        table: Of `SymbolTable`.
        spans: int64[2, capacity], out.
        result: int64[3], out: the message that it stopped at, rows, why.
    """
    floats, longs, ints = columns
    keys, slots, meta, allowed = table
    bits = floats.view(np.int64)
    capacity = floats.shape[1]
    for k in range(first, len(starts) - 1):
        p, end = starts[k], starts[k + 1]
        status = DONE
        rows = n
        while p < end:
            if buf[p] != _TICKS:
                status = STOPPED_ODD
                break
            begin = p
            length, p = varint(buf, p + 1, end)
            if p < 0 or length < 0 or length > end - p:
                status = STOPPED_ODD
                break
            if rows >= capacity:
                status = STOPPED_GROW
                break
            parsed = parse_tick(
                buf, p, p + length, rows, NO_LIMIT,
                floats, longs, ints, bits, keys, slots, meta, allowed,
            )  # fmt: skip
            if parsed == GROW:
                status = STOPPED_GROW
                break
            if parsed == ODD:
                ints[CODE, rows] = UNDECIDED
            p += length
            ints[MESSAGE, rows] = k
            ints[ROW, rows] = rows - n
            spans[BEGIN, rows] = begin
            spans[END, rows] = p
            rows += 1
        if status != DONE:
            result[NEXT] = k
            result[ROWS] = n
            result[STATUS] = status
            return
        n = rows
    result[NEXT] = len(starts) - 1
    result[ROWS] = n
    result[STATUS] = DONE


@compiled
def gather(
    buf: ByteArray,
    n: Int,
    longs: Int64Array,
    ints: Int32Array,
    spans: Int64Array,
    partition_of: Int32Array,
    partitions: Int,
    max_bytes: Int,
    order: Int32Array,
    out: ByteArray,
    records: Int64Array,
    runs: Int32Array,
) -> Int:
    """Copies ticks into records of one partition each, in the order they came in.

    Args:
        buf: As in `scan_batches`.
        n: Number of ticks.
        longs: Of `ColumnBuffers`.
        ints: Of `ColumnBuffers`; ticks with code `LEFT_OUT` are not copied.
        spans: As `scan_batches` filled it.
        partition_of: int32[symbols], by code.
        partitions: How many there are.
        max_bytes: Of one record, unless a single tick is larger.
        order: int32, room for n entries.
        out: uint8, room for all bytes of the ticks.
        records: int64[5, capacity], out; room for `partitions` and one for every `max_bytes / 2`.
        runs: int32[2, capacity], out; room for n entries.

    Returns:
        Number of records.
    """
    first = np.zeros(partitions + 1, np.int64)
    for i in range(n):
        code = ints[CODE, i]
        if code >= 0:
            first[partition_of[code] + 1] += 1
    for partition in range(partitions):
        first[partition + 1] += first[partition]
    place = first.copy()
    for i in range(n):
        code = ints[CODE, i]
        if code >= 0:
            partition = partition_of[code]
            order[place[partition]] = i
            place[partition] += 1
    record, run, q = -1, -1, np.int64(0)
    for partition in range(partitions):
        begin = q
        fresh = True
        for j in range(first[partition], first[partition + 1]):
            i = order[j]
            size = spans[END, i] - spans[BEGIN, i]
            if fresh or q - begin + size > max_bytes:
                fresh = False
                begin = q
                record += 1
                records[PARTITION, record] = partition
                records[NEWEST, record] = longs[EVENT_TIME, i]
                records[ONLY_CODE, record] = ints[CODE, i]
                run += 1
                runs[RUN_MESSAGE, run] = ints[MESSAGE, i]
                runs[RUN_TICKS, run] = 0
            elif runs[RUN_MESSAGE, run] != ints[MESSAGE, i]:
                run += 1
                runs[RUN_MESSAGE, run] = ints[MESSAGE, i]
                runs[RUN_TICKS, run] = 0
            runs[RUN_TICKS, run] += 1
            records[NEWEST, record] = max(records[NEWEST, record], longs[EVENT_TIME, i])
            if records[ONLY_CODE, record] != ints[CODE, i]:
                records[ONLY_CODE, record] = UNDECIDED
            for p in range(spans[BEGIN, i], spans[END, i]):
                out[q] = buf[p]
                q += 1
            records[BYTES_END, record] = q
            records[RUNS_END, record] = run + 1
    return record + 1
