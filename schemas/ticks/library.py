"""JSON and protobuf messages read by a library: the authority on everything out of the ordinary."""

import json
import re
from collections.abc import Iterator
from math import inf, isnan, nan
from typing import Any, NamedTuple

import orjson
from google.protobuf.message import DecodeError

from mystocks.v1 import market_pb2
from schemas.ticks.rules import MAX_ROWS_PER_MESSAGE

_BOM = b"\xef\xbb\xbf"
_INTEGER = re.compile(r"-?[0-9]{1,30}")
_MAX_QUOTED = 60


class MalformedMessageError(ValueError):
    """A message cannot be parsed at all; its text is a reason in words."""


class TickFields(NamedTuple):
    """The fields of one tick as `schemas.ticks.rules.tick_problem` takes them."""

    symbol: str
    event_time: int
    price: float
    size: float
    bid: float
    ask: float
    sequence: int
    volume: float
    amount: float


class _FieldError(ValueError):
    pass


def parse_json(value: bytes) -> list[Any]:
    """Returns the ticks of a JSON message, still as Python values.

    Raises:
        MalformedMessageError: It is not JSON, or neither an object nor an array.
    """
    text = value.removeprefix(_BOM)
    if not text.strip():
        raise MalformedMessageError("message is white space only")
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        parsed = _parse_lenient(text, str(error))
    if isinstance(parsed, dict):
        return [parsed]
    if isinstance(parsed, list):
        _check_count(len(parsed))
        return parsed
    raise MalformedMessageError(
        f"JSON is {_kind(parsed)}, expected an object or an array of objects"
    )


def looks_like_json(value: bytes) -> bool:
    """Whether an object or an array begins after white space."""
    return value.lstrip()[:1] in (b"{", b"[")


def _check_count(ticks: int) -> None:
    if ticks > MAX_ROWS_PER_MESSAGE:
        raise MalformedMessageError(
            f"message has {ticks} ticks, expected at most {MAX_ROWS_PER_MESSAGE}"
        )


def _parse_lenient(text: bytes, problem: str) -> Any:
    """Accepts NaN and Infinity, which Python writes, so that only the ticks with them are lost."""
    if b"NaN" in text or b"Infinity" in text:
        try:
            return json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError):
            pass
    raise MalformedMessageError(f"malformed JSON: {problem[:200]}") from None


def json_tick(item: Any) -> TickFields | str:
    """Returns the fields of one element, or in words why it has none."""
    if not isinstance(item, dict):
        return f"tick is {_kind(item)}, expected an object"
    get = item.get
    try:
        return TickFields(
            _symbol(get("symbol")),
            _integer("event_time_ns", _required("event_time_ns", get("event_time_ns"))),
            _number("price", _required("price", get("price"))),
            _number("size", get("size"), 0.0),
            _number("bid", get("bid")),
            _number("ask", get("ask")),
            _sequence(get("sequence")),
            _number("volume", get("volume")),
            _number("amount", get("amount")),
        )
    except _FieldError as error:
        return str(error)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"


def _quote(value: Any) -> str:
    if isinstance(value, list | dict):
        return _kind(value)
    text = ascii(value)
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "..."


def _required(name: str, value: Any) -> Any:
    if value is None:
        raise _FieldError(f"{name} is missing")
    return value


def _symbol(value: Any) -> str:
    if not isinstance(_required("symbol", value), str):
        raise _FieldError(f"symbol is {_kind(value)}, expected a string")
    return str(value)


def _number(name: str, value: Any, absent: float = nan) -> float:
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(f"{name} is {_quote(value)}, expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = inf if value > 0 else -inf
    if isnan(number):
        raise _FieldError(f"{name} is NaN, expected a finite number")
    return number + 0.0  # -0.0 becomes 0.0


def _integer(name: str, value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _FieldError(f"{name} is {_quote(value)}, expected an integer")
    return value


def _sequence(value: Any) -> int:
    if value is None:
        return -1
    sequence = _integer("sequence", value)
    if sequence < 0:
        raise _FieldError(f"sequence is {sequence}, expected at least 0")
    return sequence


def parse_protobuf(value: bytes) -> market_pb2.TickBatch:
    """Returns the message as a TickBatch.

    Raises:
        MalformedMessageError: It is none.
    """
    try:
        batch = market_pb2.TickBatch.FromString(value)
    except DecodeError:
        raise MalformedMessageError(
            "not a protobuf TickBatch: truncated, random bytes, or another message type"
        ) from None
    _check_count(len(batch.ticks))
    return batch


def protobuf_ticks(batch: market_pb2.TickBatch) -> Iterator[TickFields | str]:
    """Yields the fields of each tick, or in words why it has none."""
    for tick in batch.ticks:
        if tick.HasField("sequence") and tick.sequence < 0:
            yield f"sequence is {tick.sequence}, expected at least 0"
            continue
        yield TickFields(
            tick.symbol,
            tick.event_time_ns,
            tick.price,
            tick.size + 0.0,
            tick.bid + 0.0 if tick.HasField("bid") else nan,
            tick.ask + 0.0 if tick.HasField("ask") else nan,
            tick.sequence if tick.HasField("sequence") else -1,
            tick.volume + 0.0 if tick.HasField("volume") else nan,
            tick.amount + 0.0 if tick.HasField("amount") else nan,
        )
