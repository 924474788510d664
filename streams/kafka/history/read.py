"""Reading a range of a topic's history."""

from collections.abc import Sequence
from datetime import UTC, date, datetime

import numpy as np

from schemas.errors import InvalidInputError
from schemas.settings import Settings
from schemas.times import nanoseconds
from streams.kafka.history.align import align
from streams.kafka.history.result import History
from streams.kafka.history.segments import DamagedSegmentError, Segment
from streams.kafka.history.source import HistorySource, Range
from streams.kafka.history.store import SegmentStore

BAR_COLUMNS = ("open", "high", "low", "close", "volume")
_BARS = "market.bars."
_ANY_TIME = -(2**63), 2**63 - 1
# Each attempt deletes one damaged file, whose offsets are then read again.
_ATTEMPTS = 100

Time = int | str | date | datetime | np.datetime64


def read(
    settings: Settings,
    topic: str,
    symbols: Sequence[str] | None = None,
    start: Time | None = None,
    end: Time | None = None,
    columns: Sequence[str] | None = None,
) -> History:
    """Returns the values of a topic by symbol and event time, as far as it is committed now.

    A symbol and time that occur several times have the row with the highest revision, and of
    equal ones (or without revisions) the last in the log.

    Args:
        settings: Where Kafka is, and `settings.history`.
        topic: A topic of blocks, such as ``market.bars.1d`` or ``features.ticks``.
        symbols: Rows of the block in this order; None stands for all in the range, by name.
        start: First event time: a date or ISO 8601 text (without a zone: UTC), a `datetime` with a
            zone, or nanoseconds since 1970-01-01 UTC. None is the oldest.
        end: Event time to stop before; None is the newest.
        columns: Which values; None stands for open, high, low, close and volume of bars, and for
            all of other topics.

    Raises:
        InvalidInputError: The topic is compacted or holds no blocks, a time or column is not
            acceptable, or the block would be larger than `history.max_result_bytes`.
        KafkaUnavailableError: The topic is missing, or no broker answers.
    """
    low = _ANY_TIME[0] if start is None else _nanoseconds(start, "start")
    high = _ANY_TIME[1] if end is None else _nanoseconds(end, "end")
    if columns is None and topic.startswith(_BARS):
        columns = BAR_COLUMNS
    if symbols is not None and len(set(symbols)) != len(symbols):
        raise InvalidInputError("expected each symbol once, was more (symbols); leave some out")
    limits = settings.history
    store = SegmentStore(settings.data_dir / "history", limits.cache_bytes, limits.segment_bytes)
    with HistorySource(settings, topic) as source:
        for _ in range(_ATTEMPTS):
            segments, offsets = _segments(
                source, store, limits.segment_bytes, None if start is None else low
            )
            try:
                block = align(segments, symbols, (low, high), columns, limits.max_result_bytes)
            except DamagedSegmentError as damage:
                store.discard(damage)
                last = damage
            else:
                return History(
                    topic, tuple(block.symbols), block.times, block.values, source.topic_id, offsets
                )
        raise last


def _segments(
    source: HistorySource, store: SegmentStore, limit_bytes: int, start_ns: int | None
) -> tuple[list[Segment], dict[int, Range]]:
    """Returns what covers the range, in the order of the log, and its offsets by partition."""
    partitions = range(source.partitions)
    place = source.topic, source.topic_id
    # Before the ends: a file cannot reach beyond an end that is asked for later.
    known = {p: store.known(*place, p) for p in partitions}
    spans = source.spans()
    starts = source.starts(start_ns, spans)
    found = {p: store.cover(*place, p, known[p], spans[p], starts[p]) for p in partitions}
    fetched: dict[int, list[Segment]] = {p: [] for p in partitions}
    for segment in source.fetch({p: found[p].gaps for p in partitions}, limit_bytes):
        fetched[segment.header.partition].append(store.add(segment))
    segments: list[Segment] = []
    for partition in partitions:
        parts = sorted(found[partition].segments + fetched[partition], key=_first_offset)
        if fetched[partition]:
            store.merge(parts)
        segments += parts
    if any(fetched.values()):
        store.evict()
    return segments, {p: (starts[p], spans[p][1]) for p in partitions}


def _first_offset(segment: Segment) -> int:
    return segment.header.first


def _nanoseconds(time: Time, name: str) -> int:
    if isinstance(time, np.datetime64):
        return int(time.astype("datetime64[ns]").astype(np.int64))
    return nanoseconds(int(time) if isinstance(time, np.integer) else time, name, zone=UTC)
