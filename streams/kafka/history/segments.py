"""A segment: the rows of a range of offsets, by symbol and time, in memory or in a file.

A file is three Arrow IPC streams in a row, which are used where they lie (memory-mapped): symbols
and where their rows begin, distinct event times, rows. The metadata of the first say what the file
holds, with a checksum of every array; a file that is cut off or changed is found out before a
number of it is used.
"""

import contextlib
import json
import os
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.arrow_values import column_values
from schemas.errors import MyStocksError
from streams.kafka.history.columns import REVISION, Rows
from streams.kafka.history.kernels import (
    checksum,
    place_rows,
    put_floats,
    put_ints,
    rank_times,
)

FORMAT = 1
_HEADER, _HEADER_CRC = b"mystocks.history", b"mystocks.history.crc32"
_STARTS, _NAMES, _TIMES, _IDS = "start", "symbol", "event_time", "time_index"


class DamagedSegmentError(MyStocksError):
    """A cache file is not what it says; its offsets have to be read from the log again.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, detail: object) -> None:
        super().__init__(
            f"expected a whole file of the history cache, was {detail} ({path}); delete it"
        )
        self.path = path


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment holds.

    Attributes:
        topic: The topic.
        topic_id: Kafka's id of it, which a topic of the same name created later does not have.
        partition: Its partition.
        first: First offset.
        end: Offset to stop before.
        rows: Number of rows.
        min_time: Smallest event time, nanoseconds since 1970-01-01 UTC.
        max_time: Largest event time; without rows it is smaller than the smallest.
        min_revision: Smallest revision, 0 where rows have none.
        max_revision: Largest revision.
        constants: Columns that hold one value, as hexadecimal text.
        columns: The other ones.
        checksums: Of each array.
        format: Version of the layout.
    """

    topic: str
    topic_id: str
    partition: int
    first: int
    end: int
    rows: int
    min_time: int
    max_time: int
    min_revision: int
    max_revision: int
    constants: dict[str, str] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    checksums: dict[str, int] = field(default_factory=dict)
    format: int = FORMAT


class Segment:
    """Rows of a range of offsets, sorted by symbol, then time, then offset.

    Attributes:
        header: What it holds.
        starts: int64 [symbols + 1], first row of each symbol, and the end.
        times: int64 [ranks], distinct event times, ascending.
        ids: int32 [n], rank of each row's time.
    """

    def __init__(
        self,
        header: SegmentHeader,
        names: Any,
        starts: NDArray[np.int64],
        times: NDArray[np.int64],
        ids: NDArray[np.int32],
        columns: dict[str, NDArray[np.float64]],
        check: Callable[[str, Any], None] = lambda _name, _values: None,
    ) -> None:
        self.header = header
        self._names = names
        self.starts = starts
        self.times = times
        self.ids = ids
        self._columns = columns
        self._check = check

    @cached_property
    def names(self) -> list[str]:
        """Symbols."""
        return list(self._names.to_pylist())

    @property
    def column_names(self) -> list[str]:
        """Names of all columns, those that hold one value included."""
        return [*self.header.columns, *self.header.constants]

    def check_index(self) -> None:
        """Compares all but the columns with their checksums.

        Raises:
            DamagedSegmentError: One differs.
        """
        index = {_STARTS: self.starts, _TIMES: self.times, _IDS: self.ids, _NAMES: self._names}
        for name, values in index.items():
            self._check(name, values)

    def column(self, name: str) -> NDArray[np.float64]:
        """Returns a column, float64 [n]; NaN where the segment does not have it.

        Raises:
            DamagedSegmentError: It differs from its checksum.
        """
        if name in self._columns:
            self._check(name, self._columns[name])
            return self._columns[name]
        text = self.header.constants.get(name, "nan")
        return np.full(self.header.rows, float.fromhex(text))

    def as_rows(self) -> Rows:
        """Returns the rows one by one; those of a symbol and time in the order of the log.

        Raises:
            DamagedSegmentError: A file differs from its checksums.
        """
        self.check_index()
        codes = np.repeat(np.arange(len(self.names), dtype=np.int32), np.diff(self.starts))
        columns = {name: [self.column(name)] for name in self.header.columns}
        columns |= {
            name: [np.full(1, float.fromhex(text))] for name, text in self.header.constants.items()
        }
        return Rows(self.names, codes, self.times[self.ids], [len(codes)], columns)


def build(rows: Rows, topic: str, topic_id: str, partition: int, first: int, end: int) -> Segment:
    """Sorts rows into a segment.

    Args:
        rows: In the order of the log.
        topic: Of the header, as the other ones.
        topic_id: Likewise.
        partition: Likewise.
        first: Likewise.
        end: Likewise.
    """
    n = len(rows.codes)
    codes = np.ascontiguousarray(rows.codes)
    ids, times = rank_times(np.ascontiguousarray(rows.times))
    starts = np.zeros(len(rows.names) + 1, np.int64)
    places = np.empty(n, np.int32)
    if not place_rows(codes, ids, starts, places):
        order = np.lexsort((ids, codes))
        places[order] = np.arange(n, dtype=np.int32)
    sorted_ids = np.empty(n, np.int32)
    put_ints(sorted_ids, places, ids)
    columns: dict[str, NDArray[np.float64]] = {}
    constants, low, high = dict[str, str](), 0, 0
    for name, pieces in rows.columns.items():
        constant = _constant(pieces)
        if constant is not None:
            constants[name] = constant.hex()
            span = constant, constant
        else:
            columns[name] = _sorted(pieces, rows.lengths, places)
            span = columns[name].min(), columns[name].max()
        if name == REVISION and not np.isnan(span[0]):
            low, high = int(span[0]), int(span[1])
    header = SegmentHeader(
        topic,
        topic_id,
        partition,
        first,
        end,
        n,
        int(times[0]),
        int(times[-1]),
        low,
        high,
        constants,
        list(columns),
    )
    return Segment(header, pa.array(rows.names, pa.string()), starts, times, sorted_ids, columns)


def empty(topic: str, topic_id: str, partition: int, first: int, end: int) -> Segment:
    """Returns a segment of offsets that hold no rows; for arguments see `build`."""
    header = SegmentHeader(topic, topic_id, partition, first, end, 0, 0, -1, 0, 0)
    none: NDArray[np.int64] = np.empty(0, np.int64)
    return Segment(
        header, pa.array([], pa.string()), np.zeros(1, np.int64), none, np.empty(0, np.int32), {}
    )


def merge(segments: Sequence[Segment]) -> Segment:
    """Joins segments that follow each other and have the same columns.

    Raises:
        DamagedSegmentError: One of them is not what it was.
    """
    first, last = segments[0].header, segments[-1].header
    place = first.topic, first.topic_id, first.partition, first.first, last.end
    if not any(segment.header.rows for segment in segments):
        return empty(*place)
    codes: dict[str, int] = {}
    parts = []
    for segment in segments:
        rows = segment.as_rows()
        local = np.array([codes.setdefault(name, len(codes)) for name in rows.names], np.int32)
        parts.append((rows, local[rows.codes]))
    joined = Rows(
        list(codes),
        np.concatenate([code for _, code in parts]),
        np.concatenate([rows.times for rows, _ in parts]),
        [length for rows, _ in parts for length in rows.lengths],
        {
            name: [piece for rows, _ in parts for piece in rows.columns[name]]
            for name in segments[0].column_names
        },
    )
    return build(joined, *place)


def _constant(pieces: list[NDArray[np.float64]]) -> float | None:
    """Returns the value that all rows have, or None."""
    if any(len(piece) != 1 for piece in pieces):
        return None
    values = np.concatenate(pieces).view(np.int64)
    return float(pieces[0][0]) if (values == values[0]).all() else None


def _sorted(
    pieces: list[NDArray[np.float64]],
    lengths: list[int],
    places: NDArray[np.int32],
) -> NDArray[np.float64]:
    out = np.empty(len(places))
    first = 0
    for piece, length in zip(pieces, lengths, strict=True):
        values = piece if len(piece) == length else np.full(length, piece[0])
        put_floats(out, places[first : first + length], values)
        first += length
    return out


def write(segment: Segment, path: Path) -> None:
    """Writes a segment; the file appears under its name only when it is whole.

    Raises:
        OSError: It could not be written.
    """
    header = segment.header
    arrays: dict[str, NDArray[Any]] = {
        _STARTS: segment.starts,
        _TIMES: segment.times,
        _IDS: segment.ids,
        **{name: segment.column(name) for name in header.columns},
    }
    names = pa.array(segment.names, pa.string())
    sums = {name: _checksum(values) for name, values in arrays.items()}
    sums[_NAMES] = _names_crc(names)
    text = json.dumps(asdict(header) | {"checksums": sums}).encode()
    metadata = {_HEADER: text, _HEADER_CRC: b"%d" % zlib.crc32(text)}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{os.getpid()}-{uuid.uuid4().hex}.tmp"
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            symbols = {_NAMES: names, _STARTS: _array(segment.starts[:-1])}
            _write_stream(file, symbols, metadata)
            _write_stream(file, {_TIMES: _array(segment.times).view(pa.timestamp("ns", "UTC"))})
            rows = {name: _array(arrays[name]) for name in (_IDS, *header.columns)}
            _write_stream(file, rows)
        temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def open_segment(path: Path, checked: set[str]) -> Segment:
    """Opens a segment; its arrays stay in the file.

    Args:
        path: The file; may be deleted or replaced while the segment is in use.
        checked: What was compared with its checksum before and need not be again, by a name made
            of the file and the array; grows.

    Raises:
        FileNotFoundError: There is no such file (any more).
        DamagedSegmentError: The file is not whole, or of another version.
    """
    try:
        return _open(path, checked)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise DamagedSegmentError(path, error) from error


def _open(path: Path, checked: set[str]) -> Segment:
    stat = path.stat()
    identity = f"{path}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
    with pa.memory_map(str(path)) as file:
        symbols, metadata = _read_stream(file)
        times, _ = _read_stream(file)
        rows, _ = _read_stream(file)
    text = metadata[_HEADER]
    if int(metadata[_HEADER_CRC]) != zlib.crc32(text):
        raise ValueError("header and checksum differ")
    fields = json.loads(text)
    if fields.get("format") != FORMAT:
        raise ValueError(f"format {fields.get('format')}, expected {FORMAT}")
    header = SegmentHeader(**fields)
    if rows.num_rows != header.rows:
        raise ValueError(f"{rows.num_rows} rows, expected {header.rows}")

    def check(name: str, values: Any) -> None:
        if f"{identity}:{name}" in checked:
            return
        found = _names_crc(values) if name == _NAMES else _checksum(values)
        if found != header.checksums[name]:
            raise DamagedSegmentError(path, f"one whose {name} and checksum differ")
        checked.add(f"{identity}:{name}")

    def array(batch: Any, name: str, kind: Any, dtype: Any) -> NDArray[Any]:
        return column_values(batch.column(name), kind, dtype, None, name)

    return Segment(
        header,
        symbols.column(_NAMES),
        np.append(array(symbols, _STARTS, pa.int64(), np.int64), header.rows),
        array(times, _TIMES, pa.timestamp("ns", "UTC"), np.int64),
        array(rows, _IDS, pa.int32(), np.int32),
        {name: array(rows, name, pa.float64(), np.float64) for name in header.columns},
        check,
    )


def _write_stream(file: Any, arrays: dict[str, Any], metadata: Any = None) -> None:
    schema = pa.schema([(name, a.type) for name, a in arrays.items()], metadata)
    with pa.ipc.new_stream(file, schema) as stream:
        stream.write_batch(pa.RecordBatch.from_arrays(list(arrays.values()), schema=schema))


def _read_stream(file: Any) -> tuple[Any, dict[bytes, bytes]]:
    # Not closed: that would close the file, which goes on behind the stream.
    reader = pa.ipc.open_stream(file)
    batch = reader.read_next_batch()
    # The mark of the stream's end, behind which the next one begins.
    if next(iter(reader), None) is not None:
        raise ValueError("more rows than expected")
    return batch, reader.schema.metadata or {}


def _array(values: NDArray[Any]) -> Any:
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def _names_crc(names: Any) -> int:
    try:
        names.validate(full=True)
        return zlib.crc32("\n".join(names.to_pylist()).encode())
    except (pa.ArrowException, TypeError):
        return -1


def _checksum(values: NDArray[Any]) -> int:
    data = values.view(np.uint8)
    whole = len(data) & ~7
    return int(checksum(data[:whole].view(np.uint64))) ^ zlib.crc32(data[whole:].tobytes())
