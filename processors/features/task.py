"""One partition's work: bytes to ticks, ticks to features, features to blocks.

The state advances with `process` and is permanent only after `commit`; `rollback` takes it back.
Replaying the same messages gives the same rows, however they are split into batches.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.kernel import FeatureKernel
from processors.features.state import ChunkLedger, PartitionState
from schemas.processing import Block, LatestRows, MessageBatch, Produced, Refusal

if TYPE_CHECKING:
    from schemas.ticks import SymbolTable, TickColumns, TickDecoder

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


class BlockEncoder(Protocol):
    """Encodes rows as one output record."""

    def __call__(
        self,
        codes: NDArray[np.int32],
        names: Sequence[str],
        event_time: "Integers",
        price: "Floats",
        values: "Floats",
    ) -> bytes:
        """Returns the record value of rows in order."""


class Placement(Protocol):
    """Tells the partition on which a symbol belongs."""

    def __call__(self, symbol: str) -> int:
        """Returns a partition number."""


class FeatureTask:
    """Computes the features of one partition.

    Args:
        partition: Partition number.
        kernel: The compiled feature set.
        decoder: Bytes to columns; shared between the tasks of a process.
        encode: Columns to bytes; shared likewise.
        rows_per_block: Most rows that fit into one record.
        new_symbols: Makes an empty symbol table; a task has one of its own.
        placement: Where symbols belong; given only if others are to be refused.
        snapshot_interval_s: Every changed part of the state is due for storing after this.
    """

    def __init__(
        self,
        partition: int,
        kernel: FeatureKernel,
        decoder: "TickDecoder",
        encode: BlockEncoder,
        rows_per_block: int,
        new_symbols: "Callable[[], SymbolTable]",
        *,
        placement: Placement | None = None,
        snapshot_interval_s: float = 30.0,
    ) -> None:
        self.partition = partition
        self._kernel = kernel
        self._decoder = decoder
        self._encode_block = encode
        self._rows_per_block = rows_per_block
        self._new_symbols = new_symbols
        self._placement = placement
        self._interval_s = snapshot_interval_s
        self._features = len(kernel.feature_set.columns)
        self._workspace = GroupingWorkspace()
        self._out = np.empty((self._features, 0))
        self._empty()

    def _empty(self) -> None:
        self._symbols = self._new_symbols()
        self._state = PartitionState(self._kernel.state_width, self._features)
        self._ledger = ChunkLedger(self._state.chunk_symbols, self._interval_s)
        self._touched = np.zeros(len(self._state.row), np.bool_)
        self._published_symbols = 0

    def reset(self) -> None:
        """Empties state and symbol table."""
        self._empty()

    def warm_up(self) -> None:
        """Runs every compiled function once, so that the first batch does not wait for it."""
        codes = np.zeros(1, np.int32)
        order, starts, slots = group_by_slot(codes, self._workspace)
        inputs = tuple(np.ones(1) for _ in self._kernel.feature_set.inputs)
        out = np.empty((self._features, 1))
        self._kernel.run(order, starts, slots, inputs, self._state.kernel.copy(), out)
        self._encode_block(codes, ["WARM"], np.ones(1, np.int64), np.ones(1), out)

    def process(self, batch: MessageBatch, first_row: int) -> Produced:
        """Advances the state over a batch and returns its rows, numbered from `first_row`."""
        began = time.perf_counter()
        ticks, refused = self._decode(batch)
        decoded = time.perf_counter()
        rows = len(ticks.code)
        if not rows:
            return Produced(refused=refused, stage_seconds={"decode": decoded - began})
        self._compute(ticks, batch.first_offset, first_row)
        computed = time.perf_counter()
        blocks = self._encode(ticks)
        encoded = time.perf_counter()
        stages = {
            "decode": decoded - began,
            "kernel": computed - decoded,
            "encode": encoded - computed,
        }
        return Produced(rows, blocks, refused, stage_seconds=stages)

    def replay(self, batch: MessageBatch, first_row: int) -> int:
        """Advances restored state over a batch without output.

        Ticks that a symbol's restored state already includes are passed over.

        Returns:
            Number of rows in the batch, those passed over included.
        """
        ticks, _ = self._decode(batch)
        rows = len(ticks.code)
        if rows:
            self._make_room()
            new = batch.offsets[ticks.message] >= self._state.known_until[ticks.code]
            if new.all():
                self._compute(ticks, batch.first_offset, first_row)
            elif new.any():
                positions = np.flatnonzero(new)
                self._compute(_select(ticks, new), batch.first_offset, first_row, positions)
            self._state.commit()
        return rows

    def shift_rows(self, distance: int) -> None:
        """Adds `distance` to the identity of every row so far."""
        self._state.row[self._state.row >= 0] += distance

    def commit(self) -> None:
        """Makes everything since the last commit permanent."""
        self._state.commit()
        self._ledger.commit()

    def rollback(self) -> None:
        """Puts the state back to the last commit."""
        self._state.rollback()
        self._ledger.rollback()

    def resume_point(self, offset: int, row: int) -> tuple[int, int]:
        """Returns offset and row from which stored chunks must be replayed; by default these."""
        return self._ledger.resume_point(offset, row)

    def due_chunks(self, now: float, budget_bytes: int) -> list[tuple[int, bytes]]:
        """Returns chunks to store with the next commit, for at most about `budget_bytes`."""
        names = self._symbols.names
        chunks: list[tuple[int, bytes]] = []
        for chunk in self._ledger.due(now, len(names)):
            if budget_bytes <= 0:
                break
            payload = self._state.encode_chunk(chunk, names)
            self._ledger.storing(chunk, len(names))
            chunks.append((chunk, payload))
            budget_bytes -= len(payload)
        return chunks

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Loads a stored chunk; chunks come in ascending order."""
        names, arrays = self._state.decode_chunk(payload)
        slots = np.array([self._symbols.intern(name) for name in names], np.int32)
        self._state.ensure(len(self._symbols))
        self._state.load(slots, arrays, next_offset)
        self._ledger.loaded(chunk, len(names))

    def touch_all(self) -> None:
        """Makes the next `take_latest` return every symbol."""
        self._make_room()
        self._touched[: len(self._symbols)] = True

    def take_latest(self) -> LatestRows | None:
        """Returns the newest rows of the symbols touched since the last call, or None."""
        state = self._state
        slots = np.flatnonzero(self._touched & (state.row >= 0))
        self._touched[:] = False
        if not len(slots):
            return None
        names = self._symbols.names
        symbols = [names[slot] for slot in slots]
        first_new = int(np.searchsorted(slots, self._published_symbols))
        self._published_symbols = len(names)
        return LatestRows(
            self.partition,
            symbols,
            state.event_time[slots],
            state.price[slots],
            state.row[slots],
            state.values[slots],
            int(state.row.max()),
            frozenset(symbols[first_new:]),
        )

    def _decode(self, batch: MessageBatch) -> "tuple[TickColumns, list[Refusal]]":
        ticks, refused = self._decoder.decode(
            batch.values, batch.content_types, batch.timestamps_ms, self._symbols
        )
        if self._placement is not None and len(ticks.code):
            return self._refuse_misplaced(ticks, refused, self._placement)
        return ticks, refused

    def _refuse_misplaced(
        self, ticks: "TickColumns", refused: list[Refusal], placement: Placement
    ) -> "tuple[TickColumns, list[Refusal]]":
        names = self._symbols.names
        wrong = {
            code: home
            for code in np.unique(ticks.code).tolist()
            if (home := placement(names[code])) != self.partition
        }
        if not wrong:
            return ticks, refused
        misplaced = np.isin(ticks.code, list(wrong))
        by_message: dict[int, list[int]] = {}
        reasons: dict[int, str] = {}
        for i in np.flatnonzero(misplaced).tolist():
            message, code = int(ticks.message[i]), int(ticks.code[i])
            by_message.setdefault(message, []).append(int(ticks.row[i]))
            reasons.setdefault(
                message,
                f"expected {names[code]} on partition {wrong[code]} (murmur2 of the symbol), was "
                f"on {self.partition}; use murmur2_random as partitioner",
            )
        merged = _merge(refused, by_message, reasons)
        return _select(ticks, ~misplaced), merged

    def _make_room(self) -> None:
        self._state.ensure(len(self._symbols))
        if len(self._touched) < len(self._state.row):
            touched = np.zeros(len(self._state.row), np.bool_)
            touched[: len(self._touched)] = self._touched
            self._touched = touched

    def _compute(
        self,
        ticks: "TickColumns",
        first_offset: int,
        first_row: int,
        positions: "NDArray[np.intp] | None" = None,
    ) -> None:
        """Advances the state.

        `positions` are the rows' places in the batch where some were left out.
        """
        self._make_room()
        rows = len(ticks.code)
        if self._out.shape[1] < rows:
            self._out = np.empty((self._features, max(rows, 4096, 2 * self._out.shape[1])))
        order, starts, slots = group_by_slot(ticks.code, self._workspace)
        state = self._state
        state.remember(slots)
        inputs = tuple(getattr(ticks, name) for name in self._kernel.feature_set.inputs)
        self._kernel.run(order, starts, slots, inputs, state.kernel, self._out)
        last = order[starts[1:] - 1]
        state.event_time[slots] = ticks.event_time[last]
        state.price[slots] = ticks.price[last]
        state.values[slots] = self._out[:, last].T
        state.row[slots] = first_row + (last if positions is None else positions[last])
        self._touched[slots] = True
        self._ledger.touched(slots, first_offset, first_row, time.monotonic())

    def _encode(self, ticks: "TickColumns") -> list[Block]:
        blocks = []
        size = self._rows_per_block
        for lo in range(0, len(ticks.code), size):
            hi = min(lo + size, len(ticks.code))
            value = self._encode_block(
                ticks.code[lo:hi],
                self._symbols.names,
                ticks.event_time[lo:hi],
                ticks.price[lo:hi],
                self._out[:, lo:hi],
            )
            newest = int(ticks.event_time[lo:hi].max())
            blocks.append(
                Block(value, hi - lo, int(ticks.message[lo]), int(ticks.message[hi - 1]), newest)
            )
        return blocks


def _select(ticks: "TickColumns", rows: NDArray[np.bool_]) -> "TickColumns":
    """Returns the ticks of some rows, as copies."""
    return type(ticks)(**{field.name: getattr(ticks, field.name)[rows] for field in fields(ticks)})


def _merge(
    refused: list[Refusal], by_message: Mapping[int, list[int]], reasons: Mapping[int, str]
) -> list[Refusal]:
    """Adds refused rows to what is refused already, one `Refusal` a message."""
    merged = {refusal.message: refusal for refusal in refused}
    for message, rows in by_message.items():
        before = merged.get(message)
        if before is None or before.rows is None:
            merged[message] = Refusal(message, tuple(rows), reasons[message])
        else:
            together = tuple(sorted({*before.rows, *rows}))
            merged[message] = Refusal(message, together, f"{before.reason}; {reasons[message]}")
    return [merged[message] for message in sorted(merged)]
