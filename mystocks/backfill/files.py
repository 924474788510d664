"""Opening CSV, Parquet and Arrow files, piece by piece, with a name for every row."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from schemas.errors import InvalidInputError

_PARQUET_ROWS = 262_144
_CSV_BLOCK_BYTES = 8 * 1024**2
_TEXT = pa.dictionary(pa.int32(), pa.utf8())
_CSV = (".csv", ".txt")
_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".feather", ".ipc")


@dataclass(frozen=True)
class HistoryFile:
    """An open file.

    Attributes:
        names: Its columns.
        read: Yields some of its columns in pieces: tables, and how far in the file (0 to 1) each
            of them ends. Columns named in `numbers` that cannot be read as numbers come as text.
        row_name: How an error names row i, counted from 0.
    """

    names: list[str]
    read: Callable[[Sequence[str], Sequence[str]], Iterator[tuple[pa.Table, float]]]
    row_name: Callable[[int], str]


@contextmanager
def open_file(name: str) -> Iterator[HistoryFile]:
    """Opens a file by its ending.

    Raises:
        InvalidInputError: There is no such file, or its kind is unknown; what is wrong inside is
            raised while it is read.
    """
    path = Path(name)
    kind = path.suffix.lower()
    if kind not in (*_CSV, *_PARQUET, *_ARROW):
        raise InvalidInputError(
            f"expected FILE.csv, FILE.parquet or FILE.arrow, was {name!r} (FILE); convert the file"
        )
    try:
        with path.open("rb") as file:
            if kind in _CSV:
                yield _csv(path)
            elif kind in _PARQUET:
                yield _parquet(file)
            else:
                yield _arrow(path)
    except OSError as error:
        raise InvalidInputError(
            f"expected a readable file, was not: {error.strerror or error} ({name}); correct FILE"
        ) from None
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"expected a {kind} file, was not ({name}: {' '.join(str(error).split())[:200]}); "
            "correct FILE"
        ) from None


def _csv(path: Path) -> HistoryFile:
    with path.open("rb") as file:
        header = file.readline()
    try:
        names = pc_csv.read_csv(pa.BufferReader(header or b"\n")).column_names
    except pa.ArrowInvalid:
        names = []
    # Arrow counts only rows that are not empty, and line 1 is the header.
    return HistoryFile(names, lambda c, n: _csv_tables(path, c, n), lambda row: f"line {row + 2}")


def _csv_tables(
    path: Path, columns: Sequence[str], numbers: Sequence[str]
) -> Iterator[tuple[pa.Table, float]]:
    """Reads numbers as numbers; from the first piece on where that fails, as text."""
    size = max(path.stat().st_size, 1)
    done = 0
    for kind in (pa.float64(), pa.utf8()):
        bad_lines: list[str] = []
        with path.open("rb") as file:
            try:
                reader = _csv_reader(file, columns, numbers, kind, bad_lines)
                row = 0
                for batch in reader:
                    row += len(batch)
                    if row > done:
                        yield pa.Table.from_batches([batch]), min(file.tell() / size, 1.0)
                        done = row
                return
            except pa.ArrowInvalid:
                if bad_lines and kind == pa.utf8():
                    raise InvalidInputError(f"{bad_lines[0]} ({path}); correct it") from None
                if kind == pa.utf8():
                    raise


def _csv_reader(
    file: Any, columns: Sequence[str], numbers: Sequence[str], kind: Any, bad_lines: list[str]
) -> Any:
    def on_bad_line(row: Any) -> str:
        number = f"line {row.number}" if row.number is not None else f"a line, {row.text!r:.60}"
        bad_lines.append(
            f"expected {row.expected_columns} values, was {row.actual_columns} in {number}"
        )
        return "error"

    types = {name: kind if name in numbers else _TEXT for name in columns}
    return pc_csv.open_csv(
        file,
        # Only one thread knows the numbers of bad lines. They are rare: the second reading finds
        # them out.
        read_options=pc_csv.ReadOptions(use_threads=kind != pa.utf8(), block_size=_CSV_BLOCK_BYTES),
        parse_options=pc_csv.ParseOptions(invalid_row_handler=on_bad_line),
        convert_options=pc_csv.ConvertOptions(
            column_types=types, include_columns=list(columns), strings_can_be_null=True
        ),
    )


def _parquet(file: Any) -> HistoryFile:
    source = pq.ParquetFile(file)
    total = max(source.metadata.num_rows, 1)

    def read(columns: Sequence[str], _numbers: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        done = 0
        for batch in source.iter_batches(_PARQUET_ROWS, columns=list(columns)):
            done += len(batch)
            yield pa.Table.from_batches([batch]), done / total

    return HistoryFile(source.schema_arrow.names, read, lambda row: f"row {row}")


def _arrow(path: Path) -> HistoryFile:
    """Opens an Arrow IPC file (Feather) or stream."""

    def batches() -> tuple[Any, Iterator[tuple[Any, float]]]:
        source = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_file(source)
        except pa.ArrowInvalid:
            source.seek(0)
            stream = pa.ipc.open_stream(source)
            size = max(source.size(), 1)
            return stream.schema, ((batch, source.tell() / size) for batch in stream)
        total = max(file.num_record_batches, 1)
        numbered = ((file.get_batch(i), (i + 1) / total) for i in range(file.num_record_batches))
        return file.schema, numbered

    def read(columns: Sequence[str], _numbers: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
        for batch, done in batches()[1]:
            for first in range(0, len(batch), _PARQUET_ROWS):
                piece = batch.select(list(columns)).slice(first, _PARQUET_ROWS)
                yield pa.Table.from_batches([piece]), done

    return HistoryFile(list(batches()[0].names), read, lambda row: f"row {row}")
