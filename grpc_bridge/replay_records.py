"""A record of a replay's output as a serialized response: features, or bars."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.encode import encode_record
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.wire import frame, frames, packed_varints
from mystocks.v1.market_pb2 import BarBlock
from mystocks.v1.realtime_pb2 import ReplayMarketDataResponse
from schemas.bars import FLOAT_COLUMNS, BarColumns, decode_bars
from schemas.headers import SET_HASH
from streams.kafka.batch import header

_FEATURES_FIELD = ReplayMarketDataResponse.DESCRIPTOR.fields_by_name["features"].number
_BARS_FIELD = ReplayMarketDataResponse.DESCRIPTOR.fields_by_name["bars"].number
_BAR = {name: field.number for name, field in BarBlock.DESCRIPTOR.fields_by_name.items()}
_ALL = Choice()


class ReplayedRecord(NamedTuple):
    """What a client gets of a record.

    Attributes:
        rows: How many rows or bars.
        newest_ns: Newest event time of them, nanoseconds since 1970 (UTC).
        response: A serialized `ReplayMarketDataResponse`.
    """

    rows: int
    newest_ns: int
    response: bytes


RecordEncoder = Callable[[Message], ReplayedRecord]


def feature_encoder(feature_set: str) -> RecordEncoder:
    """Returns what encodes records of features.

    Args:
        feature_set: Name of the set.
    """

    def encode(message: Message) -> ReplayedRecord:
        record = FeatureRecord(message)
        block = encode_record(feature_set, record, _ALL, slice(0, record.rows))
        newest_ns = int(record.columns().times.max())
        return ReplayedRecord(record.rows, newest_ns, frame(_FEATURES_FIELD, block.data))

    return encode


def bar_encoder(interval: str) -> RecordEncoder:
    """Returns what encodes records of bars.

    Args:
        interval: Of the bars.
    """

    def encode(message: Message) -> ReplayedRecord:
        symbols, bars = decode_bars(message.value() or b"")
        set_hash = header(message.headers(), SET_HASH) or ""
        block = encode_bar_block(interval, set_hash, symbols, bars)
        return ReplayedRecord(len(bars), int(bars.end_time.max()), frame(_BARS_FIELD, block))

    return encode


def encode_bar_block(
    interval: str, set_hash: str, symbols: Sequence[str], bars: BarColumns
) -> bytes:
    """Returns a serialized BarBlock.

    Args:
        interval: Of the bars.
        set_hash: Identity of the rules that made them.
        symbols: Those that the codes of `bars` point to.
        bars: The bars, at least one.
    """
    parts = [
        frame(_BAR["interval"], interval.encode()),
        frame(_BAR["set_hash"], set_hash.encode()),
        frames(_BAR["symbols"], (symbol.encode() for symbol in symbols)),
        frame(_BAR["symbol_index"], packed_varints(bars.code)),
        frame(_BAR["start_time_ns"], _little(bars.start_time, "<i8")),
        frame(_BAR["end_time_ns"], _little(bars.end_time, "<i8")),
        *(frame(_BAR[name], _little(getattr(bars, name), "<f8")) for name in FLOAT_COLUMNS),
        frame(_BAR["trades"], _little(bars.trades, "<i8")),
        frame(_BAR["revision"], packed_varints(bars.revision)),
    ]
    return b"".join(parts)


def _little(values: NDArray[np.int64] | NDArray[np.float64], kind: str) -> bytes:
    return np.ascontiguousarray(values, kind).tobytes()
