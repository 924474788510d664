"""Parts of messages in all three encodings."""

import json

import pyarrow as pa
import pytest

from mystocks.v1.market_pb2 import Tick, TickBatch
from schemas.errors import InvalidInputError
from schemas.ticks.select_rows import select_rows, symbols_of

SYMBOLS = [f"S{i}" for i in range(5)]
TIME = 1_700_000_000_000_000_000


def arrow(symbols: pa.Array) -> bytes:
    table = pa.table({"symbol": symbols, "event_time_ns": [TIME] * 5, "price": [1.0] * 5})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


VALUES = {
    "protobuf": TickBatch(
        ticks=[Tick(symbol=s, event_time_ns=TIME, price=1.0) for s in SYMBOLS]
    ).SerializeToString(),
    "json": json.dumps([{"symbol": s, "price": 1.0} for s in SYMBOLS]).encode(),
    # Begins like protobuf.
    "json after a line feed": b"\n" + json.dumps([{"symbol": s} for s in SYMBOLS]).encode(),
    "arrow": arrow(pa.array(SYMBOLS)),
    "arrow dictionary": arrow(pa.array(SYMBOLS).dictionary_encode()),
}


@pytest.mark.parametrize("kind", VALUES)
def test_the_symbols_of_some_ticks_are_those_of_the_message_made_of_them(kind):
    value = VALUES[kind]
    assert symbols_of(value, None, [1, 4]) == ["S1", "S4"]
    assert symbols_of(select_rows(value, None, {4, 1}), None, [0, 1]) == ["S1", "S4"]


def test_ticks_without_a_symbol_have_an_empty_one():
    assert symbols_of(b'[{"price":1},7,{"symbol":3}]', None, [0, 1, 2]) == ["", "", ""]
    assert symbols_of(arrow(pa.array(["A", None, "B", "C", "D"])), None, [0, 1]) == ["A", ""]


@pytest.mark.parametrize("kind", VALUES)
def test_positions_beyond_the_message_are_refused(kind):
    for function in (select_rows, symbols_of):
        with pytest.raises(InvalidInputError, match="ticks at"):
            function(VALUES[kind], None, [5])
