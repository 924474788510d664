"""Times in files: dates, texts, numbers and timestamps as nanoseconds."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.arrow_values import column_values
from schemas.errors import InvalidInputError
from schemas.ticks.rules import MIN_EVENT_TIME_NS
from streams.kafka.history.kernels import rank_times

# What a time that cannot be read is set to.
NO_TIME = np.iinfo(np.int64).min
_DAY_NS = 86_400 * 10**9
_NANOSECONDS = pa.timestamp("ns")
_EPOCH_TEXT = r"^([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})$"
_EPOCH_DECIMAL = re.compile(r"([0-9]{10}|[0-9]{13}|[0-9]{16}|[0-9]{19})(\.[0-9]*)?")
# Of a number of the epoch, by its size: seconds, milliseconds, microseconds, nanoseconds.
_SCALES = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))


@dataclass(frozen=True)
class Times:
    """Times of rows.

    Attributes:
        values: int64 [n], nanoseconds since 1970-01-01: of UTC, or of the file's own clock;
            `NO_TIME` where there is none.
        is_utc: Which of the two.
    """

    values: NDArray[np.int64]
    is_utc: bool

    @property
    def are_dates(self) -> bool:
        """Whether all are midnights of the file's own clock."""
        known = self.values[self.values != NO_TIME]
        return not self.is_utc and bool((known % _DAY_NS == 0).all())


def zone_of(name: str) -> ZoneInfo:
    """Returns a time zone.

    Raises:
        InvalidInputError: There is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise InvalidInputError(
            f"expected a time zone such as Asia/Shanghai, was {name!r} (--timezone); correct it"
        ) from None


def read_times(column: Any, clock: Any = None) -> Times:
    """Reads a column of times.

    Args:
        column: A `pyarrow.Array` of dates, timestamps, numbers or text.
        clock: Time of day in a column of its own, or None.
    """
    if clock is not None:
        texts = [pc.cast(_plain(part), pa.utf8()) for part in (column, clock)]
        return read_times(pc.binary_join_element_wise(*texts, " "))
    column = _plain(column, keep_dictionary=True)
    if pa.types.is_dictionary(column.type):
        distinct = read_times(column.dictionary)
        index = column_values(column.indices, pa.int32(), np.int32, -1, "")
        # One more, for rows without a time: index -1.
        values = np.append(distinct.values, NO_TIME)
        return Times(values[index], distinct.is_utc)
    kind = column.type
    if pa.types.is_timestamp(kind):
        return Times(_stamps(column), kind.tz is not None)
    if pa.types.is_date(kind):
        return Times(_stamps(column.cast(pa.date32()).cast(pa.timestamp("s"))), is_utc=False)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        numbers = pc.cast(column, pa.int64(), safe=False)
        return _numbers(column_values(numbers, pa.int64(), np.int64, NO_TIME, ""))
    if pa.types.is_null(kind):
        return Times(np.full(len(column), NO_TIME), is_utc=False)
    return _texts(pc.cast(column, pa.utf8()))


def to_utc(times: Times, zone: ZoneInfo) -> NDArray[np.int64]:
    """Returns times as UTC; those of the file's own clock are of `zone`."""
    if times.is_utc:
        return times.values
    return local_to_utc(times.values, zone)


def local_to_utc(values: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Returns wall-clock times of a zone, int64 ns, as UTC; `NO_TIME` stays."""
    return _by_hour(values, lambda moment: -_offset(moment.replace(tzinfo=zone)))


def utc_to_local(values: NDArray[np.int64], zone: ZoneInfo) -> NDArray[np.int64]:
    """Returns UTC times, int64 ns, as wall-clock times of a zone; `NO_TIME` stays."""
    return _by_hour(values, lambda moment: _offset(moment.replace(tzinfo=UTC).astimezone(zone)))


def _offset(moment: datetime) -> int:
    offset = moment.utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * 10**9


def _by_hour(values: NDArray[np.int64], shift: Callable[[datetime], int]) -> NDArray[np.int64]:
    """Shifts times by what holds at the beginning of their quarter of an hour."""
    if not len(values):
        return values
    quarter = 900 * 10**9
    index, parts = rank_times(values // quarter)
    shifts = np.zeros(len(parts), np.int64)
    for i, part in enumerate(parts.tolist()):
        if part * quarter >= MIN_EVENT_TIME_NS - _DAY_NS:
            shifts[i] = shift(datetime.fromtimestamp(part * 900, UTC).replace(tzinfo=None))
    return np.where(values == NO_TIME, values, values + shifts[index])


def _plain(column: Any, *, keep_dictionary: bool = False) -> Any:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type) and not keep_dictionary:
        return column.dictionary_decode()
    return column


def _stamps(column: Any) -> NDArray[np.int64]:
    kind = pa.timestamp("ns", column.type.tz)
    return column_values(column.cast(kind, safe=False), kind, np.int64, NO_TIME, "")


def _numbers(values: NDArray[np.int64]) -> Times:
    """Reads 20200102, 20200102093100, and seconds to nanoseconds since 1970."""
    known = values[values != NO_TIME]
    for scale in (1, 10**6):
        low, high = 19_000_101 * scale, 21_001_232 * scale
        if len(known) and known.min() >= low and known.max() < high:
            distinct, index = np.unique(values, return_inverse=True)
            texts = np.where(distinct == NO_TIME, 0, distinct).astype(str).tolist()
            return Times(_texts_one_by_one(texts).values[index], is_utc=False)
    scaled = values.copy()
    for limit, scale in reversed(_SCALES):
        scaled = np.where((values != NO_TIME) & (np.abs(values) < limit), values * scale, scaled)
    return Times(scaled, is_utc=True)


def _texts(column: Any) -> Times:
    if len(column) == 0:
        return Times(np.empty(0, np.int64), is_utc=False)
    try:
        return Times(_stamps(column.cast(_NANOSECONDS)), is_utc=False)
    except pa.ArrowInvalid:
        pass
    if pc.all(pc.match_substring_regex(column, _EPOCH_TEXT)).as_py():
        return read_times(column.cast(pa.int64()))
    try:
        return Times(_stamps(column.cast(pa.timestamp("ns", "UTC"))), is_utc=True)
    except pa.ArrowInvalid:
        return _texts_one_by_one(column.to_pylist())


def _texts_one_by_one(texts: list[str | None]) -> Times:
    zones = 0
    found: dict[str | None, int] = {None: NO_TIME}
    for text in texts:
        if text in found:
            continue
        found[text], is_utc = _one(text or "")
        zones += is_utc
    return Times(np.array([found[text] for text in texts], np.int64), is_utc=zones > 0)


def _one(text: str) -> tuple[int, bool]:
    """Returns a time in ns, and whether it is of UTC; `NO_TIME` where the text is none."""
    if _EPOCH_DECIMAL.fullmatch(text):
        value = Decimal(text)
        scale = next((scale for limit, scale in _SCALES if value < limit), 1)
        return int(value * scale), True
    moment = _moment(text)
    if moment is None:
        return NO_TIME, False
    whole = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).replace(microsecond=0)
    ns = int(whole.timestamp()) * 10**9 + moment.microsecond * 1000
    return ns, moment.tzinfo is not None


def _moment(text: str) -> datetime | None:
    text = text.strip().replace("/", "-")
    if text.isdigit() and len(text) == 14:
        text = f"{text[:8]}T{text[8:]}"
    for pattern in (None, "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y%m%d %H:%M:%S"):
        try:
            if pattern is None:
                return datetime.fromisoformat(text)
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None
