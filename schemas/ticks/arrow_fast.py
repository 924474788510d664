"""Arrow streams whose metadata equal a remembered template, compiled.

Reads one optional dictionary and one record batch without nulls and without compression. Buffer
positions, offsets and dictionary indices are checked here; everything else that is not ordinary,
and any tick that a rule refuses, is left to the library path (`ODD`).
"""

import numpy as np

from schemas.ticks.arrow_shapes import (
    BATCH_BODY,
    BATCH_BUFFERS,
    BATCH_END,
    BATCH_NODES,
    BATCH_ROWS,
    BUFFER_COUNT,
    DICTIONARY_BODY,
    DICTIONARY_BUFFERS,
    DICTIONARY_END,
    DICTIONARY_NODES,
    DICTIONARY_ROWS,
    FIRST_FIELD,
    NODE_COUNT,
    SCHEMA_END,
    USED,
)
from schemas.ticks.columns import (
    AMOUNT,
    ASK,
    BID,
    CODE,
    EVENT_TIME,
    PRICE,
    SEQUENCE,
    SIZE,
    VOLUME,
    ByteArray,
    ColumnArrays,
    Int32Array,
    Int64Array,
    ShapeArrays,
    TableArrays,
)
from schemas.ticks.compiled import (
    GROW,
    ODD,
    Flag,
    Int,
    clear_row,
    compiled,
    load_u64,
    low_bytes,
    row_ok,
)
from schemas.ticks.rules import MAX_ROWS_PER_MESSAGE
from schemas.ticks.symbol_table import intern_bytes

_NOT_ASCII = np.uint64(0x8080808080808080)
# End of stream: continuation and length 0.
_END_OF_STREAM = np.uint64(0x00000000FFFFFFFF)
_UNSEEN = -3


@compiled
def _int64(buf: ByteArray, p: Int) -> Int:
    return np.int64(load_u64(buf, p))


@compiled
def _int32(buf: ByteArray, p: Int) -> Int:
    return np.int64(np.int32(load_u64(buf, p) & np.uint64(0xFFFFFFFF)))


@compiled
def _equals(
    buf: ByteArray, p: Int, template: ByteArray, mask: ByteArray, start: Int, stop: Int
) -> Flag:
    """Whether the bytes at `p` equal template[start:stop] where the mask says so."""
    for i in range(start, stop, 8):
        differ = (load_u64(buf, p + i - start) ^ load_u64(template, i)) & load_u64(mask, i)
        if low_bytes(differ, stop - i) != np.uint64(0):
            return False
    return True


@compiled
def _buffers_fit(buf: ByteArray, at: Int, count: Int, body_size: Int) -> Flag:
    """Whether `count` buffer entries at `at` lie inside the body, aligned to eight bytes."""
    for i in range(count):
        offset = _int64(buf, at + 16 * i)
        length = _int64(buf, at + 16 * i + 8)
        if offset < 0 or offset & 7 != 0 or length < 0 or length > body_size:
            return False
        if offset > body_size - length:
            return False
    return True


@compiled
def _strings_fit(buf: ByteArray, offsets: Int, count: Int, text: Int, text_size: Int) -> Flag:
    """Whether string offsets ascend within the text, and the text is ASCII."""
    before = _int32(buf, offsets)
    if before < 0:
        return False
    first = before
    for i in range(1, count + 1):
        offset = _int32(buf, offsets + 4 * i)
        if offset < before:
            return False
        before = offset
    if before > text_size:
        return False
    for i in range(first, before, 8):
        if low_bytes(load_u64(buf, text + i), before - i) & _NOT_ASCII != np.uint64(0):
            return False
    return True


@compiled
def _find_shape(
    buf: ByteArray, p: Int, end: Int, templates: ByteArray, masks: ByteArray, info: Int64Array
) -> Int:
    for k in range(len(info)):
        size = info[k, SCHEMA_END]
        if info[k, USED] and p + size <= end and _equals(buf, p, templates[k], masks[k], 0, size):
            return k
    return ODD


@compiled
def parse_arrow(
    buf: ByteArray,
    p: Int,
    end: Int,
    n: Int,
    latest: Int,
    columns: ColumnArrays,
    table: TableArrays,
    shapes: ShapeArrays,
    scratch: Int32Array,
) -> Int:
    """Parses one message into rows from `n` on.

    Args:
        buf: uint8, all messages joined, with padding.
        p: Where the message begins.
        end: Where it ends.
        n: Rows so far.
        latest: Largest event time allowed.
        columns: Of `ColumnBuffers`.
        table: Of `SymbolTable`.
        shapes: (templates, masks, info) of `ArrowShapes`.
        scratch: int32, codes of the message's dictionary.

    Returns:
        How many rows there are now, or `ODD` or `GROW`.
    """
    floats, _, _ = columns
    templates, masks, all_info = shapes
    shape = _find_shape(buf, p, end, templates, masks, all_info)
    if shape < 0:
        return ODD
    template, mask, info = templates[shape], masks[shape], all_info[shape]
    p += info[SCHEMA_END]

    symbols, offsets, text = np.int64(0), np.int64(0), np.int64(0)
    has_dictionary = info[DICTIONARY_END] > info[SCHEMA_END]
    if has_dictionary:
        start, size = info[SCHEMA_END], info[DICTIONARY_END] - info[SCHEMA_END]
        if p + size > end or not _equals(buf, p, template, mask, start, start + size):
            return ODD
        place = p - start
        body, body_size = p + size, _int64(buf, place + info[DICTIONARY_BODY])
        if body_size < 0 or body_size & 7 != 0 or body_size > end - body:
            return ODD
        symbols = _int64(buf, place + info[DICTIONARY_ROWS])
        node = place + info[DICTIONARY_NODES]
        if symbols < 1 or symbols > len(scratch):
            return ODD
        if _int64(buf, node) != symbols or _int64(buf, node + 8) != 0:
            return ODD
        entry = place + info[DICTIONARY_BUFFERS]
        if not _buffers_fit(buf, entry, 3, body_size) or _int64(buf, entry + 8) != 0:
            return ODD
        if _int64(buf, entry + 24) < 4 * (symbols + 1):
            return ODD
        offsets, text = body + _int64(buf, entry + 16), body + _int64(buf, entry + 32)
        if not _strings_fit(buf, offsets, symbols, text, _int64(buf, entry + 40)):
            return ODD
        for i in range(symbols):
            scratch[i] = _UNSEEN
        p = body + body_size

    start, size = info[DICTIONARY_END], info[BATCH_END] - info[DICTIONARY_END]
    if p + size > end or not _equals(buf, p, template, mask, start, start + size):
        return ODD
    place = p - start
    body, body_size = p + size, _int64(buf, place + info[BATCH_BODY])
    if body_size < 0 or body_size & 7 != 0 or body_size > end - body:
        return ODD
    rows = _int64(buf, place + info[BATCH_ROWS])
    if rows < 1 or rows > MAX_ROWS_PER_MESSAGE:
        return ODD
    for i in range(info[NODE_COUNT]):
        node = place + info[BATCH_NODES] + 16 * i
        if _int64(buf, node) != rows or _int64(buf, node + 8) != 0:
            return ODD
    entries = place + info[BATCH_BUFFERS]
    if not _buffers_fit(buf, entries, info[BUFFER_COUNT], body_size):
        return ODD
    p = body + body_size
    if p != end and not (p + 8 == end and load_u64(buf, p) == _END_OF_STREAM):
        return ODD

    column = np.zeros(9, np.int64)
    for field in range(9):
        values = info[FIRST_FIELD + field]
        if values < 0:
            continue
        entry = entries + 16 * values
        if _int64(buf, entry - 8) != 0:  # a validity bitmap without nulls
            return ODD
        wanted = 8 * rows
        if field == 0:
            wanted = 4 * rows if has_dictionary else 4 * (rows + 1)
        if _int64(buf, entry + 8) < wanted:
            return ODD
        column[field] = body + _int64(buf, entry)
    if not has_dictionary:
        entry = entries + 16 * (info[FIRST_FIELD] + 1)
        offsets, text = column[0], body + _int64(buf, entry)
        if not _strings_fit(buf, offsets, rows, text, _int64(buf, entry + 8)):
            return ODD
    if n + rows > floats.shape[1]:
        return GROW
    return _copy_rows(
        buf, rows, column, offsets, text, symbols, n, latest,
        columns, table, scratch,
    )  # fmt: skip


@compiled
def _copy_rows(
    buf: ByteArray,
    rows: Int,
    column: Int64Array,
    offsets: Int,
    text: Int,
    symbols: Int,
    n: Int,
    latest: Int,
    columns: ColumnArrays,
    table: TableArrays,
    scratch: Int32Array,
) -> Int:
    floats, longs, ints = columns
    keys, slots, meta, allowed = table
    bits = floats.view(np.int64)
    for i in range(rows):
        clear_row(floats, longs, n)
        longs[EVENT_TIME, n] = _int64(buf, column[1] + 8 * i)
        bits[PRICE, n] = _int64(buf, column[2] + 8 * i)
        if column[3]:
            bits[SIZE, n] = _int64(buf, column[3] + 8 * i)
        if column[4]:
            bits[BID, n] = _int64(buf, column[4] + 8 * i)
        if column[5]:
            bits[ASK, n] = _int64(buf, column[5] + 8 * i)
        if column[6]:
            bits[VOLUME, n] = _int64(buf, column[6] + 8 * i)
        if column[7]:
            bits[AMOUNT, n] = _int64(buf, column[7] + 8 * i)
        if column[8]:
            longs[SEQUENCE, n] = _int64(buf, column[8] + 8 * i)
            if longs[SEQUENCE, n] < 0:
                return ODD
        if not row_ok(floats, longs, n, latest):
            return ODD
        entry = i
        code = np.int64(_UNSEEN)
        if symbols:
            entry = _int32(buf, column[0] + 4 * i)
            if entry < 0 or entry >= symbols:
                return ODD
            code = np.int64(scratch[entry])
        if code == _UNSEEN:
            first = _int32(buf, offsets + 4 * entry)
            length = _int32(buf, offsets + 4 * entry + 4) - first
            code = intern_bytes(buf, text + first, length, keys, slots, meta, allowed)
            if code < 0:
                return code
            if symbols:
                scratch[entry] = code
        ints[CODE, n] = code
        n += 1
    return n
