"""Ticks in columns: from whatever a user has to one checked Arrow table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mystocks.sdk.tick import Tick, check_tick
from schemas.errors import InvalidInputError
from schemas.symbols import SYMBOL_PATTERN
from schemas.ticks.rules import MIN_EVENT_TIME_NS

TYPES: Mapping[str, pa.DataType] = {
    "symbol": pa.utf8(),
    "event_time_ns": pa.int64(),
    "price": pa.float64(),
    "size": pa.float64(),
    "bid": pa.float64(),
    "ask": pa.float64(),
    "sequence": pa.int64(),
    "volume": pa.float64(),
    "amount": pa.float64(),
}
REQUIRED = ("symbol", "event_time_ns", "price")

Where = Callable[[int], str]


def row_name(row: int) -> str:
    """How an error names a row of a table."""
    return f"row {row}"


def is_columnar(data: Any) -> bool:
    """Whether `data` holds columns: an Arrow table or batch, a data frame, or a mapping."""
    return isinstance(data, (pa.Table, pa.RecordBatch, Mapping)) or hasattr(
        data, "__arrow_c_stream__"
    )


def tick_table(data: Any, where: Where = row_name) -> pa.Table:
    """Returns ticks as a checked table with the columns and types of `TYPES`, in that order.

    Args:
        data: Arrow table or record batch, data frame with the Arrow C stream interface (pandas,
            Polars), or mapping of column name to values. ``event_time_ns`` is an integer (ns since
            1970, UTC) or a timestamp with a time zone. Nulls are allowed in optional columns.
        where: Names a row in an error.

    Raises:
        InvalidInputError: A column is missing, unknown or of another type, or a value is not
            acceptable; the message names the field and the first such row.
    """
    if isinstance(data, pa.RecordBatch):
        data = pa.Table.from_batches([data])
    try:
        table = data if isinstance(data, pa.Table) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"expected columns of equal length, was {type(data).__name__} ({error}); "
            "pass a table, a data frame or a mapping of columns"
        ) from None
    check_names(table.column_names)
    table = pa.table({name: _typed(table, name) for name in TYPES if name in table.column_names})
    _check_values(table, where)
    return table


def check_names(names: list[str]) -> None:
    """Checks the names of columns.

    Raises:
        InvalidInputError: A name is unknown, missing or there twice.
    """
    for name in REQUIRED:
        if name not in names:
            raise InvalidInputError(
                f"expected the column {name}, was {', '.join(names) or 'no column'}; "
                f"needed are {', '.join(REQUIRED)}"
            )
    unknown = [name for name in names if name not in TYPES]
    if unknown:
        raise InvalidInputError(
            f"expected the columns {', '.join(TYPES)}, was {unknown[0]!r:.80}; "
            "drop or rename that column"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInputError(f"expected every column once, was {twice} twice; drop one")


def _typed(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table.column(name)
    kind = column.type
    if pa.types.is_timestamp(kind) and name == "event_time_ns":
        if kind.tz is None:
            raise InvalidInputError(
                "expected timestamps with a time zone, was none (event_time_ns); "
                "localize the column, for example to UTC"
            )
        kind = pa.timestamp("ns", kind.tz)
        column = _cast(column, kind, name)
    elif name == "symbol":
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(kind)):
            raise InvalidInputError(f"expected strings, was {kind} (symbol); convert the column")
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_floating(kind) and TYPES[name] == pa.float64())
        or (pa.types.is_decimal(kind) and TYPES[name] == pa.float64())
    ):
        expected = "integers" if TYPES[name] == pa.int64() else "numbers"
        raise InvalidInputError(f"expected {expected}, was {kind} ({name}); convert the column")
    column = _cast(column, TYPES[name], name)
    if name in ("bid", "ask", "volume", "amount"):
        # NaN is how data frames say "absent".
        column = pc.if_else(pc.is_nan(column), None, column)
    return column


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind))


def _cast(column: pa.ChunkedArray, kind: pa.DataType, name: str) -> pa.ChunkedArray:
    try:
        # A large integer becomes the nearest float, as it would in any reader of the tick.
        return column.cast(kind, safe=kind != pa.float64())
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"expected values that fit {kind}, was not so ({name}: {error}); convert the column"
        ) from None


def _check_values(table: pa.Table, where: Where) -> None:
    """Finds suspects by column, then lets the rule book say what is wrong with the first."""
    suspect = pc.invert(
        pc.match_substring_regex(table["symbol"], f"^(?:{SYMBOL_PATTERN.pattern})\\z")
    )
    doubts = [suspect, pc.less(table["event_time_ns"], MIN_EVENT_TIME_NS)]
    for name in table.column_names[2:]:
        column = table[name]
        if name == "sequence":
            doubts.append(pc.less(column, 0))
        else:
            doubts.append(pc.invert(pc.is_finite(column)))
            doubts.append((pc.less_equal if name == "price" else pc.less)(column, 0.0))
    rows = [
        found
        for doubt in (
            *(pc.fill_null(doubt, False) for doubt in doubts),
            *(pc.is_null(table[name]) for name in REQUIRED),
        )
        if (found := pc.index(doubt, True).as_py()) >= 0
    ]
    if not rows:
        return
    row = min(rows)
    values = table.slice(row, 1).to_pylist()[0]
    for name in REQUIRED:
        if values[name] is None:
            raise InvalidInputError(f"{name} is missing ({where(row)}); add it")
    if values.get("size") is None:
        values["size"] = 0.0
    check_tick(Tick(**values), where(row))
