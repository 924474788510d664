"""From a record of a features topic to the rows of it that are wanted."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from mystocks.sdk.rows import FeatureBlock
from schemas.features import EVENT_TIME, PRICE, SYMBOL, decode_block, decode_json_rows
from streams.kafka.feature_positions import first_row_of

_FIXED = frozenset({SYMBOL, "event_time_ns", PRICE})


def block_of(
    message: Message,
    *,
    after: int | None,
    symbols: pa.Array | None = None,
    since_ns: int | None = None,
) -> FeatureBlock:
    """Decodes a record and leaves out what was seen or not asked for.

    Args:
        message: A record without an error.
        after: Rows up to this one were seen; None if none was.
        symbols: Symbols of interest; None for all.
        since_ns: Rows with an older event time (UTC, ns) are left out; None for no such bound.

    Raises:
        InvalidInputError: The record is no feature block.
    """
    value = message.value() or b""
    batch = _json_batch(value) if value[:1] == b"[" else decode_block(value)
    first_row = first_row_of(message)
    last_row = first_row + batch.num_rows - 1
    seen = 0 if after is None else min(max(0, after + 1 - first_row), batch.num_rows)
    batch = batch.slice(seen)
    rows: range | list[int] = range(first_row + seen, last_row + 1)
    wanted = _wanted(batch, symbols, since_ns)
    if wanted is not None:
        batch = batch.filter(wanted)
        rows = [row for row, keep in zip(rows, wanted.to_pylist(), strict=True) if keep]
    kind, timestamp = message.timestamp()
    return FeatureBlock(
        batch=batch,
        rows=rows,
        last_row=last_row,
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=-1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        headers={name: value.decode("ascii", "replace") for name, value in message.headers() or ()},
    )


def _json_batch(value: bytes) -> pa.RecordBatch:
    rows = decode_json_rows(value)
    names = [name for name in (rows[0] if rows else ()) if name not in _FIXED]
    columns = {
        SYMBOL: pa.array([row.get(SYMBOL) for row in rows], pa.utf8()).dictionary_encode(),
        EVENT_TIME: pa.array([row.get("event_time_ns") for row in rows], pa.timestamp("ns", "UTC")),
        PRICE: pa.array([row.get(PRICE) for row in rows], pa.float64()),
    }
    columns |= {name: pa.array([row.get(name) for row in rows], pa.float64()) for name in names}
    return pa.RecordBatch.from_pydict(columns)


def _wanted(
    batch: pa.RecordBatch, symbols: pa.Array | None, since_ns: int | None
) -> pa.Array | None:
    """One boolean a row; None if all rows are wanted."""
    wanted = None
    if symbols is not None:
        # A dictionary array is not searched by value.
        wanted = pc.is_in(batch.column("symbol").cast(pa.utf8()), value_set=symbols)
    if since_ns is not None:
        recent = pc.greater_equal(batch.column("event_time").cast(pa.int64()), since_ns)
        wanted = recent if wanted is None else pc.and_(wanted, recent)
    return wanted
