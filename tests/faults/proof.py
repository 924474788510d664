"""The proof after each fault: what came out since the last one, row by row and bit by bit."""

import json
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from redis import Redis

from mystocks.cli.recomputed import unequal_rows
from mystocks.feature_tasks import FeatureTasks
from schemas.settings import Settings
from schemas.topics import features_topic
from streams.kafka.batch import by_partition
from streams.kafka.bounded_read import TopicReader
from streams.tables.feature_table import TableNames

# Nothing may keep rows, or the table, away for longer.
_BOUND_S = 60.0


class Proof:
    """Rows and table of a feature set whose messages hold one tick each."""

    def __init__(self, settings: Settings, table: Callable[[], Redis]) -> None:
        name = settings.features.name
        self._table = table
        self._key = TableNames.of(name).rows
        self._rows = TopicReader(settings, features_topic(name), "proof")
        self._ticks = TopicReader(settings, settings.features.source_topic, "proof-source")
        tasks = FeatureTasks(settings)
        count = self._ticks.partitions
        self._partitions = [
            Partition(p, tasks(p, count), self._rows, self._ticks) for p in range(count)
        ]

    def close(self) -> None:
        self._rows.close()
        self._ticks.close()

    def check(self, at_least: int, meanwhile: Callable[[], None]) -> int:
        """Compares every row since the last call, and the table with the rows.

        Args:
            at_least: So many rows must come; waited for.
            meanwhile: Called while something is waited for.

        Returns:
            The number of rows so far.
        """
        deadline = time.monotonic() + _BOUND_S
        while (count := self._read()) < at_least:
            assert time.monotonic() < deadline, f"{count} of {at_least} rows came"
            meanwhile()
            time.sleep(0.1)
        wanted = [dict(partition.last) for partition in self._partitions]
        deadline = time.monotonic() + _BOUND_S
        while behind := self._behind(found := self._stored(), wanted):
            assert time.monotonic() < deadline, f"redis lacks the last rows of {behind[:5]}"
            meanwhile()
            time.sleep(0.1)
        # What the table has was committed, but readers see it only once its markers are written.
        deadline = time.monotonic() + _BOUND_S
        while (count := self._read()) and (hidden := self._unread(found)):
            assert time.monotonic() < deadline, f"redis has rows that the topic lacks: {hidden[:5]}"
            time.sleep(0.02)
        for symbol, row in found.items():
            self._partitions[row["partition"]].compare(symbol, row)
        for partition, rows in zip(self._partitions, wanted, strict=True):
            partition.forget(min(rows.values(), default=0))
        return count

    def _read(self) -> int:
        for partition in self._partitions:
            partition.read()
        return sum(partition.next_row for partition in self._partitions)

    def _stored(self) -> dict[str, dict]:
        client = self._table()
        try:
            stored = client.hgetall(self._key)
        finally:
            client.close()
        return {key.decode(): json.loads(value) for key, value in stored.items()}

    def _unread(self, found: dict[str, dict]) -> list[str]:
        ends = [partition.next_row for partition in self._partitions]
        return [symbol for symbol, row in found.items() if row["row"] >= ends[row["partition"]]]

    @staticmethod
    def _behind(found: dict[str, dict], wanted: list[dict[str, int]]) -> list[str]:
        return [
            symbol
            for number, rows in enumerate(wanted)
            for symbol, row in rows.items()
            if symbol not in found
            or (found[symbol]["partition"], found[symbol]["row"]) < (number, row)
        ]


class Partition:
    """One partition, as far as it was read.

    Attributes:
        next_row: Identity of the next row.
        last: Symbol to the identity of its last row.
    """

    def __init__(self, number: int, task, rows: TopicReader, ticks: TopicReader) -> None:
        self.next_row = 0
        self.last: dict[str, int] = {}
        self._number = number
        self._task = task
        self._rows, self._ticks = rows, ticks
        self._next_block = self._next_tick = 0
        self._kept: list[tuple[int, pa.RecordBatch]] = []

    def read(self) -> None:
        """Reads the rows that are new and computes them again."""
        theirs, first_row, source_end = [], self.next_row, self._next_tick
        for message in self._rows.read(self._number, self._next_block):
            place = f"partition {self._number} at {message.offset()}"
            headers = dict(message.headers())
            first, count = int(headers["first_row"]), int(headers["rows"])
            assert first == self.next_row, f"{place}: row {first} follows {self.next_row - 1}"
            theirs.append(pa.ipc.open_stream(message.value()).read_next_batch())
            self.next_row += count
            self._next_block = message.offset() + 1
            source_end = int(headers["source_last_offset"]) + 1
        if not theirs:
            return
        found, expected = joined(theirs), joined(self._recompute(source_end))
        assert len(found) == len(expected), f"partition {self._number}: {len(expected)} expected"
        wrong = first_row + np.flatnonzero(unequal_rows(expected, found))
        assert not len(wrong), f"partition {self._number}: row {wrong[0]} differs from its ticks"
        self._kept.append((first_row, found))
        for i, symbol in enumerate(found.column("symbol").to_pylist()):
            self.last[symbol] = first_row + i

    def compare(self, symbol: str, stored: dict) -> None:
        """Compares a row of the table with the row of that identity."""
        number = stored.pop("row")
        stored.pop("partition")
        first, rows = next(kept for kept in reversed(self._kept) if kept[0] <= number)
        row = rows.slice(number - first, 1).to_pylist()[0]
        row["event_time_ns"] = rows.column("event_time")[number - first].value
        del row["event_time"]
        assert stored == row, f"redis has {stored} for row {number}, expected {row} of {symbol}"

    def forget(self, before: int) -> None:
        """Drops the rows that the table cannot have any more."""
        self._kept = [kept for kept in self._kept if kept[0] + len(kept[1]) > before]

    def _recompute(self, end: int) -> list[pa.RecordBatch]:
        ours, row = [], 0
        messages = list(self._ticks.read(self._number, self._next_tick, end))
        for batch in by_partition(messages):
            for block in self._task.process(batch, row).blocks:
                ours.append(pa.ipc.open_stream(block.value).read_next_batch())
                row += block.rows
            self._task.commit()
        self._next_tick = end
        return ours


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Returns batches as one, with symbols as text."""
    plain = []
    for batch in batches:
        place = batch.schema.get_field_index("symbol")
        symbols = batch.column(place).cast(pa.utf8())
        plain.append(batch.set_column(place, pa.field("symbol", pa.utf8()), symbols))
    return pa.Table.from_batches(plain).combine_chunks().to_batches()[0]
