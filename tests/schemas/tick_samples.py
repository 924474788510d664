"""Shared by the codec tests: strategies for ticks and messages, and comparable results."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mystocks.v1 import market_pb2
from schemas.ticks import SymbolTable, TickDecoder
from schemas.ticks.encode import encode_arrow, encode_batch, encode_json

TIME = 1_700_000_000_000_000_000
FIELDS = (
    "event_time",
    "price",
    "size",
    "bid",
    "ask",
    "volume",
    "amount",
    "sequence",
    "message",
    "row",
)
ALPHABET = "ABCXYZabcxyz0189._:/^=-"

symbols = st.text(ALPHABET, min_size=1, max_size=32)
times = st.integers(10**17, 2**63 - 1)
prices = st.floats(min_value=5e-324, allow_infinity=False, allow_nan=False)
amounts = st.floats(min_value=0, allow_infinity=False, allow_nan=False)
optional_amounts = st.none() | amounts


@st.composite
def tick_columns(draw: Any, min_size: int = 1, max_size: int = 6) -> dict[str, Any]:
    size = draw(st.integers(min_size, max_size))

    def column(strategy: Any) -> Any:
        return draw(st.lists(strategy, min_size=size, max_size=size))

    columns = {
        "symbols": column(symbols),
        "event_times_ns": column(times),
        "prices": column(prices),
    }
    for name in ("sizes", "bids", "asks", "volumes", "amounts"):
        if draw(st.booleans()):
            columns[name] = column(optional_amounts)
    if draw(st.booleans()):
        columns["sequences"] = column(st.none() | st.integers(0, 2**63 - 1))
    return columns


ENCODERS = (encode_json, encode_batch, encode_arrow)


def decode(
    values: Sequence[bytes | None],
    decoder: TickDecoder,
    *,
    slow: bool = False,
    content_types: Sequence[str | None] | None = None,
    timestamps_ms: Any = None,
    max_symbols: int = 1000,
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], list[str]]:
    """Rows (NaN as None), refusals and symbols; `slow` sends every message to the libraries."""
    table = SymbolTable(max_symbols)
    every_row = frozenset(range(2000))
    only = dict.fromkeys(range(len(values)), every_row) if slow else None
    columns, refusals = decoder.decode(values, content_types, timestamps_ms, table, only)
    names = [table.names[code] for code in columns.code]
    rest = [
        [None if isinstance(x, float) and math.isnan(x) else x for x in column.tolist()]
        for column in (getattr(columns, field) for field in FIELDS)
    ]
    assert all(column.flags.c_contiguous for column in (columns.code, columns.price))
    rows = list(zip(names, *rest, strict=True))
    found = [(refusal.message, refusal.rows, refusal.reason) for refusal in refusals]
    assert found == sorted(found, key=lambda refusal: refusal[0])
    return rows, found, list(table.names)


def good_json(symbol: str = "GOOD", **fields: Any) -> bytes:
    return json.dumps({"symbol": symbol, "event_time_ns": TIME, "price": 10.5} | fields).encode()


def good_batch(*ticks: dict[str, Any]) -> bytes:
    default = {"symbol": "GOOD", "event_time_ns": TIME, "price": 10.5}
    return market_pb2.TickBatch(
        ticks=[market_pb2.Tick(**(default | tick)) for tick in ticks or ({},)]
    ).SerializeToString()


NO_TIMESTAMP = np.array([-1], np.int64)
