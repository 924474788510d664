"""The compiled loop over messages: tells JSON from protobuf and stops at the first odd one."""

import numpy as np

from schemas.ticks.arrow_fast import parse_arrow
from schemas.ticks.columns import (
    MESSAGE,
    ROW,
    ByteArray,
    ColumnArrays,
    Int32Array,
    Int64Array,
    ShapeArrays,
    TableArrays,
)
from schemas.ticks.compiled import GROW, ODD, Int, compiled
from schemas.ticks.json_fast import parse_json
from schemas.ticks.kinds import ARROW, JSON, PROTOBUF, SNIFF
from schemas.ticks.protobuf_fast import parse_protobuf
from schemas.ticks.rules import MAX_ROWS_PER_MESSAGE
from schemas.ticks.symbol_table import forget_from

# As `latest`: every event time is allowed.
NO_LIMIT = np.int64(2**63 - 1)
# Why the loop stopped.
DONE, STOPPED_ODD, STOPPED_GROW = range(3)
# Places in `result`.
NEXT, ROWS, STATUS = range(3)


@compiled
def decode_run(
    buf: ByteArray,
    starts: Int64Array,
    kinds: ByteArray,
    latest: Int,
    first: Int,
    n: Int,
    columns: ColumnArrays,
    table: TableArrays,
    shapes: ShapeArrays,
    scratch: Int32Array,
    result: Int64Array,
) -> None:
    """Decodes messages from `first` on into rows from `n` on, until one is not ordinary.

    Args:
        buf: uint8, all messages joined, with padding.
        starts: int64[messages + 1], where each begins.
        kinds: uint8[messages].
        latest: int64[messages], largest event time allowed.
        first: Index of the first message.
        n: Rows so far.
        columns: Of `ColumnBuffers`.
        table: Of `SymbolTable`.
        shapes: (templates, masks, info) of `ArrowShapes`.
        scratch: int32, room for the codes of an Arrow dictionary.
        result: int64[3], out: the message that it stopped at, rows, why.
    """
    # Unpacked once: taking an array from a tuple costs more than a field of a tick.
    floats, longs, ints = columns
    keys, slots, meta, allowed = table
    capacity = floats.shape[1]
    for k in range(first, len(kinds)):
        p, end = starts[k], starts[k + 1]
        kind = kinds[k]
        if kind == SNIFF and p < end:
            byte = buf[p]
            if byte == 0x0A:
                kind = PROTOBUF
            elif byte in (123, 91, 32, 9, 13):
                kind = JSON
            elif byte == 0xFF:
                kind = ARROW
        symbols = meta[0]
        rows = ODD
        if n >= capacity:
            rows = GROW
        elif p == end:
            rows = ODD
        elif kind == JSON:
            rows = parse_json(
                buf, p, end, n, latest[k], floats, longs, ints, keys, slots, meta, allowed
            )
        elif kind == PROTOBUF:
            rows = parse_protobuf(
                buf, p, end, n, latest[k], floats, longs, ints, keys, slots, meta, allowed
            )
        elif kind == ARROW:
            rows = parse_arrow(
                buf, p, end, n, latest[k], columns, table,
                shapes, scratch,
            )  # fmt: skip
        if rows < 0 or rows - n > MAX_ROWS_PER_MESSAGE:
            forget_from(symbols, table)
            result[NEXT] = k
            result[ROWS] = n
            result[STATUS] = STOPPED_GROW if rows == GROW else STOPPED_ODD
            return
        for row in range(rows - n):
            ints[MESSAGE, n + row] = k
            ints[ROW, n + row] = row
        n = rows
    result[NEXT] = len(kinds)
    result[ROWS] = n
    result[STATUS] = DONE
