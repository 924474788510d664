"""Some ticks of a message as a message of the same encoding."""

import json
from collections.abc import Collection

import pyarrow as pa

from mystocks.v1 import market_pb2
from schemas.errors import InvalidInputError
from schemas.ticks.kinds import ARROW, JSON, PROTOBUF, SNIFF, kind_of, sniff
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
    kind = kind_of(content_type)
    if kind == SNIFF and value:
        kind = sniff(value)
    wanted = sorted(set(rows))
    try:
        if kind == ARROW:
            return _arrow(value, wanted)
        if kind == PROTOBUF:
            return _protobuf(value, wanted)
        if kind == JSON:
            return _json(value, wanted)
    except (MalformedMessageError, pa.ArrowException, IndexError) as error:
        raise InvalidInputError(
            f"expected a message with ticks at {wanted[:10]}, was not ({error}); requeue it whole"
        ) from error
    raise InvalidInputError("expected JSON, protobuf or Arrow, was none of them; requeue it whole")


def _json(value: bytes, rows: list[int]) -> bytes:
    items = parse_json(value)
    # As Python writes it: a number that is not finite stays what it was.
    return json.dumps([items[row] for row in rows]).encode()


def _protobuf(value: bytes, rows: list[int]) -> bytes:
    try:
        ticks = parse_protobuf(value).ticks
    except MalformedMessageError:
        return _json(value, rows)
    return market_pb2.TickBatch(ticks=[ticks[row] for row in rows]).SerializeToString()


def _arrow(value: bytes, rows: list[int]) -> bytes:
    with pa.ipc.open_stream(value) as stream:
        table = stream.read_all()
    if rows and rows[-1] >= table.num_rows:
        raise IndexError(f"{table.num_rows} rows")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.take(rows))
    return bytes(sink.getvalue())
