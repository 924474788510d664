"""A feature task in a small world: batches, commits, aborts, stored chunks, and restarts."""

import numpy as np
import pyarrow as pa

from processors.features.task import FeatureTask
from schemas.features import FeatureBlockWriter
from schemas.ticks import SymbolTable


class Batch:
    """Records of a partition."""

    partition = 0
    content_types = None

    def __init__(self, values, first_offset) -> None:
        self.values = values
        self.timestamps_ms = np.full(len(values), -1, np.int64)
        self.offsets = first_offset + np.arange(len(values), dtype=np.int64)
        self.first_offset = first_offset


class World:
    """One partition's log and everything that was ever committed about it.

    Args:
        kernel: Of the feature set.
        decoder: Of the log's records.
        log: Record values.
        rng: Decides what happens, and when.
    """

    def __init__(self, kernel, decoder, log, rng=None, chunk_symbols=2) -> None:
        self.kernel, self.decoder, self.log, self.rng = kernel, decoder, log, rng
        self.chunk_symbols = chunk_symbols
        columns = kernel.feature_set.columns
        self.encode = FeatureBlockWriter(columns, "float64").encode
        self.blocks, self.first_rows, self.late, self.dropped = [], [], [], {}
        self.duplicates = 0
        self.stored: dict[int, tuple[bytes, int]] = {}
        self.offset = self.row = self.resume = self.resume_row = 0
        self.task = self.new_task()

    def new_task(self) -> FeatureTask:
        task = FeatureTask(
            0, self.kernel, self.decoder, self.encode, 1000, lambda: SymbolTable(1000),
            snapshot_interval_s=1e-9,
        )  # fmt: skip
        # Small chunks, so that a restart finds parts of many ages.
        task._state.chunk_symbols = task._ledger._size = self.chunk_symbols
        return task

    def run(self) -> None:
        """Processes the whole log, with aborts and restarts where there is an `rng`."""
        rng = self.rng
        while self.offset < len(self.log):
            length = len(self.log) if rng is None else int(rng.integers(1, 6))
            if rng is not None and rng.random() < 0.15:
                self.restart()
            batch = Batch(self.log[self.offset : self.offset + length], self.offset)
            produced = self.task.process(batch, self.row)
            if rng is not None and rng.random() < 0.2:
                self.task.due_chunks(np.inf, 1)
                self.task.rollback()
                continue
            self.commit(batch, produced)

    def commit(self, batch, produced) -> None:
        offset, row = self.offset + len(batch.values), self.row + produced.rows
        chunks = []
        if self.rng is not None and self.rng.random() < 0.5:
            # A budget of one byte stores one chunk: the others stay old.
            chunks = self.task.due_chunks(np.inf, int(self.rng.choice([1, 10**9])))
        self.resume, self.resume_row = self.task.resume_point(offset, row)
        self.stored |= {number: (payload, offset) for number, payload in chunks}
        self.task.commit()
        for block in produced.blocks:
            self.blocks.append(pa.ipc.open_stream(block.value).read_next_batch())
        self.first_rows.append(self.row)
        self.late += [(int(batch.offsets[r.message]), r.rows) for r in produced.late]
        self.duplicates += produced.duplicates
        for reason, count in produced.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.offset, self.row = offset, row

    def restart(self) -> None:
        """Forgets the task; a new one is restored from what was stored and the log."""
        self.task = self.new_task()
        for number in sorted(self.stored):
            self.task.load_chunk(number, *self.stored[number])
        offset, row = self.resume, self.resume_row
        while offset < self.offset:
            length = min(int(self.rng.integers(1, 6)), self.offset - offset)
            row += self.task.replay(Batch(self.log[offset : offset + length], offset), row)
            offset += length
        assert row == self.row, f"{row} rows after the replay, {self.row} were committed"

    def rows(self) -> list:
        return pa.Table.from_batches(self.blocks).to_pylist() if self.blocks else []

    def latest(self) -> dict:
        """Symbol to its latest row, with its identity."""
        self.task.touch_all()
        latest = self.task.take_latest()
        columns = (latest.row, latest.event_time, latest.price, latest.values)
        return {s: str([c[i].tolist() for c in columns]) for i, s in enumerate(latest.symbols)}


class Always:
    """Decides for a `World`: small batches, no accident, all state stored."""

    def integers(self, low, _high):
        return low

    def random(self):
        return 0.4

    def choice(self, options):
        return options[-1]
