"""Requests of `StreamMarketData`, read no further than needed.

Ticks stay the bytes they are: the sink reads those of all streams in one compiled call.
"""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from grpc_bridge.tick_sink import malformed_error
from mystocks.v1.market_pb2 import TickBatch
from mystocks.v1.realtime_pb2 import FeatureSelection, MarketDataRequest, NoRows

_NUMBER, _TICK, _BATCH = 0x08, 0x12, 0x1A
_TICKS = b"\x0a"
_SEVEN_BITS = 128


class MarketRequest(NamedTuple):
    """One request.

    Attributes:
        number: The client's number.
        ticks: A serialized `TickBatch`, or None.
        receive: What to receive from now on, or None.
    """

    number: int
    ticks: bytes | None
    receive: FeatureSelection | NoRows | None


def parse_request(raw: bytes) -> MarketRequest:
    """Returns what a request asks for; the ticks in it may still turn out to be malformed.

    Raises:
        RequestFailedError: It is no `MarketDataRequest`, or asks for nothing.
    """
    try:
        p = number = 0
        if raw[0] == _NUMBER:
            number, p = _varint(raw, 1)
        tag = raw[p]
        if tag in (_TICK, _BATCH):
            length, begin = _varint(raw, p + 1)
            # Anything behind it is for the library to understand.
            if begin + length == len(raw):
                ticks = _TICKS + raw[p + 1 :] if tag == _TICK else raw[begin:]
                return MarketRequest(number, ticks, None)
    except IndexError:
        pass
    return _parse_any(raw)


def _varint(raw: bytes, p: int) -> tuple[int, int]:
    value = shift = 0
    # Numbers of more than nine bytes are left to the library.
    while shift < 63:
        byte = raw[p]
        p += 1
        value |= (byte & 127) << shift
        if byte < _SEVEN_BITS:
            return value, p
        shift += 7
    raise IndexError


def _parse_any(raw: bytes) -> MarketRequest:
    try:
        request = MarketDataRequest.FromString(raw)
    except DecodeError as error:
        raise malformed_error(0, f"{len(raw)} bytes that are no such message: {error}") from None
    kind = request.WhichOneof("kind")
    if kind == "tick":
        return MarketRequest(
            request.number, TickBatch(ticks=[request.tick]).SerializeToString(), None
        )
    if kind == "batch":
        return MarketRequest(request.number, request.batch.SerializeToString(), None)
    if kind == "select":
        return MarketRequest(request.number, None, request.select)
    if kind == "no_rows":
        return MarketRequest(request.number, None, request.no_rows)
    raise malformed_error(
        request.number, "it has neither tick nor batch, nor select or no_rows (field kind)"
    )
