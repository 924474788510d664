"""The newest row of each symbol, for a reader who does not need every row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES
from grpc_bridge.fanout.encode import (
    EncodedBlock,
    Pick,
    RowSet,
    encode_rows,
    take_names,
    take_rows,
)
from grpc_bridge.fanout.record import Columns, FeatureRecord

# So many bytes of rows are kept before all but the newest of each symbol are dropped.
_COMPACT_BYTES = 256 * 1024
# Of a symbol's name, which each newest row has for itself.
_SYMBOL_BYTES = 36


class Mailbox:
    """Rows that wait for a reader; a newer row of a symbol takes the place of an older one.

    Dropping happens in bulk, so a row costs little; what is kept is at most a few times the newest
    rows of all symbols.

    Args:
        choice: What the reader sees.

    Attributes:
        size: Bytes of the rows that are kept.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._rows: list[RowSet] = []
        self.size = 0
        self._limit = _COMPACT_BYTES

    @property
    def rows(self) -> int:
        """Number of rows that are kept."""
        return sum(len(rows.numbers) for rows in self._rows)

    def add(self, record: FeatureRecord, columns: Columns, pick: Pick) -> None:
        """Adds some of the rows of a record.

        Args:
            record: The record.
            columns: All of its rows.
            pick: Which.
        """
        columns = take_names(columns, self._choice.names)
        count = len(columns.codes)
        numbers = np.arange(record.first_row, record.first_row + count, dtype=np.int64)[pick]
        rows = RowSet(
            take_rows(columns, pick),
            numbers,
            record.set_hash,
            record.partition,
            record.source_first_offset,
            record.source_last_offset,
        )
        self._rows.append(rows)
        self.size += _size(rows)
        if self.size > self._limit:
            self._compact()
            self._limit = max(_COMPACT_BYTES, 2 * self.size)

    def clear(self) -> None:
        """Drops everything."""
        self._rows, self.size, self._limit = [], 0, _COMPACT_BYTES

    def take(self, feature_set: str) -> list[EncodedBlock]:
        """Returns the newest rows, in blocks of one partition each, and drops everything."""
        self._compact()
        blocks = [
            encode_rows(feature_set, part, self._choice)
            for rows in self._rows
            for part in _parts(rows)
        ]
        self.clear()
        return blocks

    def _compact(self) -> None:
        groups: dict[tuple[int, str, tuple[str, ...]], list[RowSet]] = {}
        for rows in self._rows:
            key = (rows.partition, rows.set_hash, rows.columns.names)
            groups.setdefault(key, []).append(rows)
        self._rows = [newest_rows(group) for group in groups.values()]
        self.size = sum(map(_size, self._rows))


def newest_rows(parts: list[RowSet]) -> RowSet:
    """Returns the last row of each symbol.

    Args:
        parts: Rows of one partition and one set, in log order.
    """
    codes: dict[str, int] = {}
    numbered = []
    for part in parts:
        own = [codes.setdefault(symbol, len(codes)) for symbol in part.columns.symbols]
        numbered.append(np.array(own, np.int32)[part.columns.codes])
    code = _joined(numbered)
    last = np.empty(len(codes), np.int64)
    # Of several values for one index the last one stays.
    last[code] = np.arange(len(code))
    keep = np.sort(last)
    columns = Columns(
        parts[0].columns.names,
        list(codes),
        code,
        _joined(part.columns.times for part in parts),
        _joined(part.columns.prices for part in parts),
        [_joined(values) for values in zip(*(part.columns.values for part in parts), strict=True)],
    )
    return parts[0]._replace(
        columns=take_rows(columns, keep),
        numbers=_joined(part.numbers for part in parts)[keep],
        source_last_offset=parts[-1].source_last_offset,
    )


def _parts(rows: RowSet) -> list[RowSet]:
    """Returns the rows in parts that fit into a response."""
    count = len(rows.numbers)
    step = max(1, count * MAX_RESPONSE_BYTES // (_size(rows) + count * _SYMBOL_BYTES))
    if count <= step:
        return [rows]
    cuts = [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]
    return [
        rows._replace(columns=take_rows(rows.columns, cut), numbers=rows.numbers[cut])
        for cut in cuts
    ]


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(arrays))


def _size(rows: RowSet) -> int:
    # Code, time, price and number of a row, and its features.
    return len(rows.numbers) * (28 + 8 * len(rows.columns.values))
