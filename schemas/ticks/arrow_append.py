"""The compiled loop that appends rows which pyarrow has read, and names the bad ones."""

from schemas.ticks.columns import (
    AMOUNT,
    ASK,
    BID,
    CODE,
    EVENT_TIME,
    MESSAGE,
    PRICE,
    ROW,
    SEQUENCE,
    SIZE,
    VOLUME,
    ByteArray,
    ColumnArrays,
    Float64Array,
    Int32Array,
    Int64Array,
    TableArrays,
)
from schemas.ticks.compiled import GROW, Int, clear_row, compiled, row_ok
from schemas.ticks.symbol_table import intern_bytes

# What `codes` holds where a dictionary entry has not been looked up yet.
UNSEEN = -3


@compiled
def append_rows(
    start: Int,
    index: Int32Array,
    offsets: Int32Array,
    text: ByteArray,
    times: Int64Array,
    prices: Float64Array,
    optional: tuple[Float64Array, ...],
    sequences: Int64Array,
    codes: Int32Array,
    message: Int,
    first_row: Int,
    latest: Int,
    n: Int,
    columns: ColumnArrays,
    table: TableArrays,
    bad: Int64Array,
) -> tuple[Int, Int, Int]:
    """Appends rows from `start` on; a symbol is interned when its first good row comes.

    Args:
        start: First row of the batch to append.
        index: See `ArrowRows`, as are the arrays up to `sequences`.
        offsets: See `ArrowRows`.
        text: See `ArrowRows`.
        times: `ArrowRows.event_time`.
        prices: `ArrowRows.price`.
        optional: `ArrowRows.floats`.
        sequences: `ArrowRows.sequence`.
        codes: int32[dictionary], scratch, `UNSEEN` where not interned yet.
        message: Index of the message.
        first_row: Position of the batch's first row in the message.
        latest: Largest event time allowed.
        n: Rows so far.
        columns: Of `ColumnBuffers`.
        table: Of `SymbolTable`.
        bad: int64[>= rows], out: positions of refused rows in the batch.

    Returns:
        (rows now, number of bad rows, row it stopped at because the symbol table must grow).
    """
    floats, longs, ints = columns
    keys, slots, meta, allowed = table
    sizes, bids, asks, volumes, amounts = optional
    bad_count = 0
    for i in range(start, len(index)):
        clear_row(floats, longs, n)
        longs[EVENT_TIME, n] = times[i]
        floats[PRICE, n] = prices[i]
        if len(sizes):
            floats[SIZE, n] = sizes[i]
        if len(bids):
            floats[BID, n] = bids[i]
        if len(asks):
            floats[ASK, n] = asks[i]
        if len(volumes):
            floats[VOLUME, n] = volumes[i]
        if len(amounts):
            floats[AMOUNT, n] = amounts[i]
        if len(sequences):
            longs[SEQUENCE, n] = sequences[i]
        entry = index[i]
        code = -1
        if entry >= 0 and row_ok(floats, longs, n, latest):
            code = codes[entry]
            if code == UNSEEN:
                p = offsets[entry]
                code = intern_bytes(text, p, offsets[entry + 1] - p, keys, slots, meta, allowed)
                if code == GROW:
                    return n, bad_count, i
                codes[entry] = code
        if code < 0:
            bad[bad_count] = i
            bad_count += 1
            continue
        ints[CODE, n] = code
        ints[MESSAGE, n] = message
        ints[ROW, n] = first_row + i
        n += 1
    return n, bad_count, len(index)
