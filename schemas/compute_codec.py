"""`ComputeFeatures`: bytes to an acceptable request, and an answer to bytes."""

import numpy as np
from google.protobuf.message import DecodeError

from mystocks.v1.market_pb2 import FeatureBlock, OhlcvRows
from mystocks.v1.realtime_pb2 import ComputeFeaturesRequest, ComputeFeaturesResponse, RequestError
from schemas.compute import ComputedRows, ComputeRequest, Floats, Rows, Times
from schemas.packed import bytes_field, packed_field
from schemas.requests import Code, RequestFailedError
from schemas.settings import ComputeSettings
from schemas.symbols import symbol_problem
from schemas.ticks.rules import MIN_EVENT_TIME_NS

# No feature name of this project comes near it.
_MAX_NAME_LENGTH = 64
_PRICES = ("open", "high", "low", "close")

_FEATURES_FIELD = ComputeFeaturesResponse.DESCRIPTOR.fields_by_name["features"].number
_INDEX, _TIME, _PRICE, _VALUE = (
    FeatureBlock.DESCRIPTOR.fields_by_name[name].number
    for name in ("symbol_index", "event_time_ns", "prices", "values")
)


def parse_request(value: bytes, bounds: ComputeSettings) -> ComputeRequest:
    """Returns the request in a serialized `ComputeFeaturesRequest`.

    Args:
        value: The message.
        bounds: How much a request may ask for.

    Raises:
        RequestFailedError: It is malformed, or a field is not acceptable; the error names it.
    """
    try:
        message = ComputeFeaturesRequest.FromString(value)
    except DecodeError:
        raise _refused(
            "", f"expected a ComputeFeaturesRequest, was {len(value)} bytes that are none; use "
            "the .proto file of this version"
        ) from None  # fmt: skip
    features = tuple(message.features)
    _check_features(features, bounds.max_features)
    start, end = (
        getattr(message.range, name) if message.range.HasField(name) else None
        for name in ("start_ns", "end_ns")
    )
    if start is not None and end is not None and start >= end:
        raise _refused(
            "range", f"expected start_ns before end_ns, was {start} and {end}; swap them"
        )
    if message.symbol or not message.HasField("rows"):
        problem = symbol_problem(message.symbol)
        if problem:
            raise _refused(
                "symbol", f"expected a symbol, was none to accept: {problem}; correct it"
            )
    rows = _rows(message.rows, bounds.max_rows) if message.HasField("rows") else None
    if rows is not None and rows.event_time_ns is None and (start, end) != (None, None):
        raise _refused(
            "rows.event_time_ns",
            "expected the time of each row since a range is asked for, was none; "
            "fill rows.event_time_ns or leave range out",
        )
    return ComputeRequest(
        features, message.profile or "talib", message.symbol, rows, start, end, message.last
    )


def encode_answer(rows: ComputedRows) -> bytes:
    """Returns a serialized `ComputeFeaturesResponse` with these rows."""
    times = rows.event_time_ns
    block = [
        FeatureBlock(names=rows.names, symbols=[rows.symbol]).SerializeToString(),
        # Every index is 0, which takes one byte.
        *bytes_field(_INDEX, [bytes(len(rows))]),
        *(packed_field(_TIME, times) if times is not None else ()),
        *packed_field(_PRICE, rows.prices),
        *packed_field(_VALUE, np.ascontiguousarray(rows.values, np.float64).reshape(-1)),
    ]
    return b"".join(bytes_field(_FEATURES_FIELD, block))


def encode_failure(error: RequestFailedError) -> bytes:
    """Returns a serialized `ComputeFeaturesResponse` that says why there are no features."""
    return ComputeFeaturesResponse(
        error=RequestError(
            code=error.code,
            message=error.message,
            field=error.field,
            retry_after_s=error.retry_after_s,
        )
    ).SerializeToString()


def decode_failure(value: bytes) -> RequestFailedError:
    """Returns the error of a reply that has one."""
    error = ComputeFeaturesResponse.FromString(value).error
    return RequestFailedError(
        Code(error.code),
        error.message,
        field=error.field,
        retry_after_s=error.retry_after_s if error.HasField("retry_after_s") else None,
    )


def _check_features(features: tuple[str, ...], most: int) -> None:
    if not features:
        raise _refused(
            "features", "expected at least one feature name, was none; for example sma_20"
        )
    if len(features) > most:
        raise _refused(
            "features",
            f"expected at most {most} feature names, was {len(features)}; ask several times, or "
            "raise MYSTOCKS_COMPUTE__MAX_FEATURES",
        )
    for i, name in enumerate(features):
        if len(name) > _MAX_NAME_LENGTH:
            raise _refused(
                f"features[{i}]",
                f"expected at most {_MAX_NAME_LENGTH} characters, was {len(name)}; correct it",
            )


def _rows(message: OhlcvRows, most: int) -> Rows:
    columns = {
        name: np.array(getattr(message, name), np.float64)
        for name in (*_PRICES, "volume")
        if len(getattr(message, name))
    }
    if "close" not in columns:
        raise _refused("rows.close", "expected at least one row, was none; send closing prices")
    count = len(columns["close"])
    if count > most:
        raise _refused(
            "rows.close",
            f"expected at most {most} rows, was {count}; send fewer, or raise "
            "MYSTOCKS_COMPUTE__MAX_ROWS",
        )
    times = np.array(message.event_time_ns, np.int64) if len(message.event_time_ns) else None
    lengths = {name: len(column) for name, column in columns.items()}
    if times is not None:
        lengths["event_time_ns"] = len(times)
    for name, length in lengths.items():
        if length != count:
            raise _refused(
                f"rows.{name}",
                f"expected {count} entries as in rows.close, or none, was {length}; "
                "give every row one",
            )
    for name, column in columns.items():
        _check_numbers(name, column)
    if times is not None:
        _check_times(times)
    return Rows(times, columns)


def _check_numbers(name: str, column: Floats) -> None:
    wanted = "at least 0" if name == "volume" else "above 0"
    # A NaN makes the smallest value NaN, and every comparison with it false.
    smallest = column.min()
    if (smallest > 0 or (name == "volume" and smallest >= 0)) and column.max() < np.inf:
        return
    allowed = np.isfinite(column) & (column >= 0 if name == "volume" else column > 0)
    first = int(np.argmin(allowed))
    raise _refused(
        f"rows.{name}[{first}]",
        f"expected a finite number {wanted}, was {column[first]:g}; correct or leave out that row",
    )


def _check_times(times: Times) -> None:
    if times[0] < MIN_EVENT_TIME_NS:
        raise _refused(
            "rows.event_time_ns[0]",
            f"expected nanoseconds since 1970 (UTC), at least {MIN_EVENT_TIME_NS}, was {times[0]}; "
            "multiply seconds by 10**9",
        )
    falls = np.flatnonzero(times[1:] < times[:-1])
    if len(falls):
        row = int(falls[0]) + 1
        raise _refused(
            f"rows.event_time_ns[{row}]",
            f"expected times that never fall, was {times[row]} after {times[row - 1]}; "
            "sort the rows, oldest first",
        )


def _refused(field: str, message: str) -> RequestFailedError:
    where = f" ({field})" if field else ""
    head, semicolon, advice = message.rpartition("; ")
    return RequestFailedError(
        Code.INVALID_ARGUMENT, f"{head}{where}{semicolon}{advice}", field=field
    )
