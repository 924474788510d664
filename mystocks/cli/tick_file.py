"""Reading a file of ticks piece by piece, with a name for every row."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from mystocks.sdk.columns import TYPES, check_names
from schemas.errors import InvalidInputError

_PARQUET_ROWS = 65_536
_CSV_BLOCK_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class TickFile:
    """An open file of ticks.

    Attributes:
        tables: Pieces of it, in order.
        row_name: How an error names row i of the file, counted from 0.
        total: Rows in all; None where that is known only at the end.
    """

    tables: Iterator[pa.Table]
    row_name: Callable[[int], str]
    total: int | None


@contextmanager
def open_ticks(name: str) -> Iterator[TickFile]:
    """Opens FILE.csv, FILE.parquet, or ``-`` for CSV on standard input.

    Raises:
        InvalidInputError: There is no such file, its kind is unknown, or its columns are not those
            of ticks; a row that cannot be read raises while `TickFile.tables` is iterated.
    """
    path = Path(name)
    if name == "-":
        # Unbuffered, so that lines of a live feed are not held back until a block is full.
        with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
            yield _csv(stdin, "standard input")
        return
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise InvalidInputError(
            f"expected FILE.csv, FILE.parquet or -, was {name!r} (FILE); convert the file"
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInputError(
            f"expected a readable file, was not: {error.strerror} ({name}); correct FILE"
        ) from None
    with file:
        yield _csv(file, name) if path.suffix.lower() == ".csv" else _parquet(file, name)


def _csv(file: Any, name: str) -> TickFile:
    bad_lines: list[str] = []

    def on_bad_line(row: Any) -> str:
        number = f"line {row.number}" if row.number is not None else "a line"
        bad_lines.append(
            f"expected {row.expected_columns} values, was {row.actual_columns} ({number} of {name}:"
            f" {row.text!r:.80}); correct it"
        )
        return "error"

    options: dict[str, Any] = {
        # One thread: only then are line numbers of bad lines known.
        "read_options": pc_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
        "parse_options": pc_csv.ParseOptions(invalid_row_handler=on_bad_line),
        # Text first, so that a bad value is refused with its line and not only its column.
        "convert_options": pc_csv.ConvertOptions(
            column_types=dict.fromkeys(TYPES, pa.utf8()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    }
    try:
        reader = pc_csv.open_csv(file, **options)
    except pa.ArrowInvalid as error:
        raise InvalidInputError(
            bad_lines[0] if bad_lines else f"expected a CSV file, was not ({name}: {error})"
        ) from None
    check_names(reader.schema.names)
    return TickFile(_csv_tables(reader, bad_lines, name), lambda row: f"line {row + 2}", None)


def _csv_tables(reader: Any, bad_lines: list[str], name: str) -> Iterator[pa.Table]:
    first = 0
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except pa.ArrowInvalid as error:
            raise InvalidInputError(
                bad_lines[0] if bad_lines else f"expected a CSV file, was not ({name}: {error})"
            ) from None
        names = batch.schema.names
        yield pa.table({n: _converted(batch.column(n), n, first) for n in names})
        first += batch.num_rows


def _converted(column: pa.Array, name: str, first_row: int) -> pa.Array:
    kind = TYPES[name]
    if kind == pa.utf8():
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        convert: Callable[[str], object] = int if kind == pa.int64() else float
        for row, text in enumerate(column.to_pylist(), first_row):
            try:
                if text is not None and text != str(convert(text)):
                    pa.scalar(text).cast(kind)
            except (ValueError, pa.ArrowInvalid):
                expected = "an integer" if kind == pa.int64() else "a number"
                raise InvalidInputError(
                    f"{name} is {text!r:.80}, expected {expected} (line {row + 2}); correct it"
                ) from None
        raise


def _parquet(file: Any, name: str) -> TickFile:
    try:
        source = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInputError(
            f"expected a Parquet file, was not ({name}: {error}); correct FILE"
        ) from None
    check_names(source.schema_arrow.names)
    tables = (pa.Table.from_batches([b]) for b in source.iter_batches(batch_size=_PARQUET_ROWS))
    return TickFile(tables, lambda row: f"row {row}", source.metadata.num_rows)
