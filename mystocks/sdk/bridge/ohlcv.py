"""Rows of prices, from whatever a user has to the message of a request."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mystocks.sdk.columns import is_columnar
from mystocks.v1.market_pb2 import OhlcvRows
from schemas.errors import InvalidInputError

_NUMBERS = ("open", "high", "low", "close", "volume")
_TIMES = ("event_time_ns", "event_time")


def ohlcv_rows(data: Any) -> OhlcvRows:
    """Returns the rows of one symbol, oldest first.

    Args:
        data: Arrow table or record batch, data frame (pandas, Polars), or mapping, with the column
            ``close`` and optionally ``open, high, low, volume`` and ``event_time`` (timestamp with
            a time zone, or a date, which stands for midnight UTC) or ``event_time_ns`` (integer);
            in any case of letters, other columns are not looked at. A pandas index of times counts
            as ``event_time``. A sequence of numbers is the column ``close``.

    Raises:
        InvalidInputError: A column is missing or of another type; the message names it.
    """
    table = _table(data)
    places: dict[str, int] = {}
    for place, name in enumerate(table.column_names):
        if name.lower() in places:
            raise InvalidInputError(
                f"expected the column {name.lower()} once, was twice; drop one of them"
            )
        places[name.lower()] = place
    if "close" not in places:
        raise InvalidInputError(
            f"expected the column close, was {', '.join(table.column_names) or 'no column'}; "
            "name the column of prices close"
        )
    rows = OhlcvRows()
    for name in _NUMBERS:
        if name in places:
            getattr(rows, name).extend(_numbers(table.column(places[name]), name))
    for name in _TIMES:
        if name in places:
            rows.event_time_ns.extend(_times(table.column(places[name]), name))
            break
    return rows


def _table(data: Any) -> pa.Table:
    if not is_columnar(data) or getattr(data, "ndim", 2) == 1 or hasattr(data, "to_frame"):
        data = {"close": data}
    try:
        if isinstance(data, pa.RecordBatch):
            return pa.Table.from_batches([data])
        if isinstance(data, pa.Table):
            return data
        if hasattr(data, "index") and hasattr(data, "reset_index"):
            return _pandas_table(data)
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"expected columns of equal length, was {type(data).__name__} ({error!s:.200}) (data); "
            "pass a table, a data frame or a mapping of columns"
        ) from None


def _pandas_table(frame: Any) -> pa.Table:
    """The columns, and the index if it is one of times and no column is."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    if not any(name.lower() in _TIMES for name in table.column_names):
        index = pa.array(frame.index)
        if pa.types.is_timestamp(index.type):
            table = table.append_column("event_time", index)
    return table


def _numbers(column: pa.ChunkedArray, name: str) -> list[float]:
    kind = column.type
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise InvalidInputError(f"expected numbers, was {kind} ({name}); convert the column")
    _check_complete(column, name)
    numbers: list[float] = column.cast(pa.float64(), safe=False).to_pylist()
    return numbers


def _times(column: pa.ChunkedArray, name: str) -> list[int]:
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is None:
        raise InvalidInputError(
            f"expected timestamps with a time zone, was none ({name}); "
            "localize the column, for example to UTC"
        )
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
        raise InvalidInputError(
            f"expected timestamps or integers, was {kind} ({name}); convert the column"
        )
    _check_complete(column, name)
    try:
        if not pa.types.is_integer(kind):
            column = column.cast(pa.timestamp("ns", "UTC"))
        times: list[int] = column.cast(pa.int64()).to_pylist()
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"expected times between 1970 and 2262, was not so ({name}: {error!s:.200}); correct it"
        ) from None
    return times


def _check_complete(column: pa.ChunkedArray, name: str) -> None:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise InvalidInputError(
            f"expected a value in every row, was none ({name}, row {row}); drop or fill such rows"
        )
