"""What a feature block looks like, how large it may be, and how to read one."""

from typing import Any, Literal

import orjson
import pyarrow as pa

from schemas.errors import InvalidInputError
from schemas.symbols import MAX_SYMBOL_BYTES

SYMBOL = "symbol"
EVENT_TIME = "event_time"
PRICE = "price"
# In JSON rows the time is an integer, and its name says of what.
EVENT_TIME_NS = "event_time_ns"

# Below the broker's default limit of 1 MiB for a record batch, with room for headers.
MAX_BLOCK_BYTES = 768 * 1024
# Arrow metadata of a stream: fixed part, and per column its schema entry, nodes and padding.
_STREAM_BYTES, _COLUMN_BYTES = 4096, 512
# Index, event time and price of a row; its own dictionary entry if no other row has its symbol.
_ROW_BYTES = 4 + 8 + 8 + MAX_SYMBOL_BYTES + 4
# Longest text of a double, and of an event time.
_JSON_NUMBER_BYTES = 25


def block_schema(columns: tuple[str, ...], dtype: Literal["float64", "float32"]) -> Any:
    """Returns the Arrow schema of a block.

    Args:
        columns: Names of the features, unique and different from the fixed columns.
        dtype: Precision of the features; price is always float64.
    """
    feature = pa.float64() if dtype == "float64" else pa.float32()
    return pa.schema(
        [
            pa.field(SYMBOL, pa.dictionary(pa.int32(), pa.string()), nullable=False),
            pa.field(EVENT_TIME, pa.timestamp("ns", "UTC"), nullable=False),
            pa.field(PRICE, pa.float64(), nullable=False),
            *(pa.field(name, feature) for name in columns),
        ]
    )


def rows_per_block(
    columns: tuple[str, ...],
    dtype: Literal["float64", "float32"] = "float64",
    output_format: Literal["arrow", "json"] = "arrow",
) -> int:
    """Returns how many rows fit into `MAX_BLOCK_BYTES` whatever their values are."""
    if output_format == "json":
        names = (SYMBOL, EVENT_TIME_NS, PRICE, *columns)
        keys = sum(len(name.encode()) + len('"":,') for name in names)
        row = keys + (len(columns) + 2) * _JSON_NUMBER_BYTES + MAX_SYMBOL_BYTES + len('"",{}')
        return max(1, MAX_BLOCK_BYTES // row)
    width = 8 if dtype == "float64" else 4
    bits = 8 * _ROW_BYTES + len(columns) * (8 * width + 1)
    fixed = _STREAM_BYTES + _COLUMN_BYTES * (len(columns) + 3)
    return max(1, (MAX_BLOCK_BYTES - fixed) * 8 // bits)


def decode_block(value: bytes) -> Any:
    """Returns the rows of a block as one `pyarrow.RecordBatch`.

    Raises:
        InvalidInputError: The value is not an Arrow IPC stream.
    """
    try:
        with pa.ipc.open_stream(value) as reader:
            batches = list(reader)
            if len(batches) == 1:
                return batches[0]
            table = pa.Table.from_batches(batches, reader.schema).combine_chunks()
            rows = table.to_batches()
            return rows[0] if rows else pa.RecordBatch.from_pylist([], reader.schema)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise InvalidInputError(
            f"expected a feature block (Arrow IPC stream), was {len(value)} other bytes "
            f"({str(error)[:100]}); check the topic and its output_format"
        ) from error


def decode_json_rows(value: bytes) -> list[dict[str, Any]]:
    """Returns the rows of a block that was written as JSON; null is None.

    Raises:
        InvalidInputError: The value is not a JSON array of objects.
    """
    try:
        rows = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(
            f"expected JSON rows, was other text ({error}); check the topic and its output_format"
        ) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError(
            "expected a JSON array of objects, was other JSON; check the topic and its "
            "output_format"
        )
    return rows
