"""Some ticks of a message as a message of the same encoding, and their symbols."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from mystocks.v1 import market_pb2
from schemas.errors import InvalidInputError
from schemas.ticks import kinds
from schemas.ticks.library import MalformedMessageError, parse_json, parse_protobuf


def select_rows(value: bytes, content_type: str | None, rows: Collection[int]) -> bytes:
    """Returns a message with the ticks at these positions, in their order.

    Args:
        value: A message that can be parsed.
        content_type: Its content-type header, or None.
        rows: Positions in the message, from 0.

    Raises:
        InvalidInputError: The message cannot be parsed, or has no such position.
    """
    wanted = sorted(set(rows))
    with _named(wanted):
        match _kind(value, content_type):
            case kinds.ARROW:
                return _arrow(value, wanted)
            case kinds.PROTOBUF:
                return _protobuf(value, wanted)
            case _:
                return _json(value, wanted)


def symbols_of(value: bytes, content_type: str | None, rows: Sequence[int]) -> list[str]:
    """Returns the symbols of the ticks at these positions; empty where there is none.

    Args:
        value: A message that can be parsed.
        content_type: Its content-type header, or None.
        rows: Positions in the message, from 0.

    Raises:
        InvalidInputError: The message cannot be parsed, or has no such position.
    """
    found: list[Any]
    with _named(rows):
        kind = _kind(value, content_type)
        if kind == kinds.ARROW:
            found = _table(value, rows).column("symbol").to_pylist()
        elif kind == kinds.PROTOBUF and (ticks := _protobuf_ticks(value)) is not None:
            found = [ticks[row].symbol for row in rows]
        else:
            items = parse_json(value)
            found = [_symbol(items[row]) for row in rows]
    return [symbol if isinstance(symbol, str) else "" for symbol in found]


def _kind(value: bytes, content_type: str | None) -> int:
    kind = kinds.kind_of(content_type)
    if kind == kinds.SNIFF and value:
        kind = kinds.sniff(value)
    if kind not in (kinds.ARROW, kinds.PROTOBUF, kinds.JSON):
        raise InvalidInputError(
            "expected JSON, protobuf or Arrow, was none of them; requeue it whole"
        )
    return kind


@contextmanager
def _named(rows: Sequence[int]) -> Iterator[None]:
    try:
        yield
    except (MalformedMessageError, pa.ArrowException, IndexError, KeyError) as error:
        raise InvalidInputError(
            f"expected a message with ticks at {list(rows[:10])}, was not ({error}); requeue it "
            "whole"
        ) from error


def _symbol(tick: Any) -> Any:
    return tick.get("symbol") if isinstance(tick, dict) else None


def _json(value: bytes, rows: list[int]) -> bytes:
    items = parse_json(value)
    # As Python writes it: a number that is not finite stays what it was.
    return json.dumps([items[row] for row in rows]).encode()


def _protobuf(value: bytes, rows: list[int]) -> bytes:
    ticks = _protobuf_ticks(value)
    if ticks is None:
        return _json(value, rows)
    return market_pb2.TickBatch(ticks=[ticks[row] for row in rows]).SerializeToString()


def _protobuf_ticks(value: bytes) -> Sequence[market_pb2.Tick] | None:
    """Returns the ticks of a message that looks like protobuf; None where it is JSON."""
    try:
        return parse_protobuf(value).ticks
    except MalformedMessageError:
        return None


def _arrow(value: bytes, rows: list[int]) -> bytes:
    table = _table(value, rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _table(value: bytes, rows: Sequence[int]) -> Any:
    with pa.ipc.open_stream(value) as stream:
        table = stream.read_all()
    if rows and max(rows) >= table.num_rows:
        raise IndexError(f"{table.num_rows} rows")
    return table.take(rows)
