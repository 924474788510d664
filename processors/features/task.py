"""One partition's work: bytes to ticks, ticks to features, features to blocks.

The state advances with `process` and is permanent only after `commit`; `rollback` takes it back.
Replaying the same messages gives the same rows, however they are split into batches.
"""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from processors.features.admission import Admission, Groups
from processors.features.grouping import GroupingWorkspace, group_by_slot
from processors.features.kernel import FeatureKernel
from processors.features.row_rules import corrections
from processors.features.state import ChunkLedger, PartitionState
from processors.features.tick_rows import merge_refusals, rows_by_message, select_ticks
from schemas.processing import (
    MISPLACED,
    Block,
    LatestRows,
    MessageBatch,
    Produced,
    Refusal,
)

if TYPE_CHECKING:
    from schemas.ticks import SymbolTable, TickColumns

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]


# No offset is above it.
_NOWHERE = 2**63 - 1


class Decoder(Protocol):
    """Decodes records into columns: of ticks, or of bars as ticks."""

    def decode(
        self,
        values: Sequence[bytes | None],
        content_types: Sequence[str | None] | None,
        timestamps_ms: "Integers | None",
        symbols: "SymbolTable",
    ) -> "tuple[TickColumns, list[Refusal]]":
        """See `schemas.ticks.decoder.TickDecoder.decode`."""


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
        decoder: Decoder,
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
        self._rules = rules = kernel.feature_set.rules
        order = rules.order()
        self._order_width = order.state_width if order is not None else 0
        self._admission: Admission | None = None
        if order is not None:
            order.warm_up()
            self._admission = Admission(order, rules.allowed_lateness_ns or 0)
        self._workspace = GroupingWorkspace()
        self._out = np.empty((self._features, 0))
        self._empty()

    def _empty(self) -> None:
        self._symbols = self._new_symbols()
        self._state = PartitionState(
            self._kernel.state_width, self._features, order_width=self._order_width
        )
        if self._admission is not None:
            self._admission.reset()
        self._ledger = ChunkLedger(self._state.chunk_symbols, self._interval_s)
        self._touched = np.zeros(len(self._state.row), np.bool_)
        self._published_symbols = 0
        self._noted_symbols = 0

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
        self._note_new_symbols(batch.first_offset, first_row)
        produced = Produced(refused=refused, ticks=len(ticks))
        groups: Groups | None = None
        passed_over = corrections(ticks, self._rules)
        if passed_over is not None:
            ticks = select_ticks(ticks, ~passed_over)
            produced.dropped["correction"] = int(passed_over.sum())
        if self._admission is not None and len(ticks):
            self._make_room()
            admitted = self._admission.admit(
                ticks, batch, self._state, self._symbols.names, self._workspace
            )
            ticks, groups = admitted.ticks, admitted.groups
            produced.late, produced.duplicates = admitted.late, admitted.duplicates
        decoded = time.perf_counter()
        produced.stage_seconds["decode"] = decoded - began
        produced.rows = len(ticks)
        if not produced.rows:
            return produced
        self._compute(ticks, batch.first_offset, first_row, groups=groups)
        computed = time.perf_counter()
        produced.blocks = self._encode(ticks)
        produced.stage_seconds["kernel"] = computed - decoded
        produced.stage_seconds["encode"] = time.perf_counter() - computed
        return produced

    def on_clock(self, now_ns: int) -> Produced | None:
        """Does nothing: rows come from ticks alone."""

    def replay(self, batch: MessageBatch, first_row: int) -> int:
        """Advances restored state over a batch without output.

        Ticks that a symbol's restored state already includes are passed over.

        Returns:
            Number of rows in the batch, those passed over included.
        """
        ticks, _ = self._decode(batch)
        self._note_new_symbols(batch.first_offset, first_row)
        passed_over = corrections(ticks, self._rules)
        if passed_over is not None:
            ticks = select_ticks(ticks, ~passed_over)
        rows = len(ticks)
        if rows:
            self._make_room()
            if self._admission is not None:
                has_row, new = self._admission.replay(ticks, batch, self._state, self._workspace)
                places = np.cumsum(has_row) - 1
                rows = int(has_row.sum())
            else:
                new = batch.offsets[ticks.message] >= self._state.known_until[ticks.code]
                places = np.arange(rows)
            if new.all():
                self._compute(ticks, batch.first_offset, first_row)
            elif new.any():
                self._compute(select_ticks(ticks, new), batch.first_offset, first_row, places[new])
            self._state.commit()
        return rows

    def shift_rows(self, distance: int) -> None:
        """Adds `distance` to the identity of every row so far."""
        self._state.row[self._state.row >= 0] += distance

    def commit(self) -> None:
        """Makes everything since the last commit permanent."""
        self._state.commit()
        self._ledger.commit()
        if self._admission is not None:
            resume, _ = self._ledger.resume_point(_NOWHERE, 0)
            self._admission.commit(resume)

    def rollback(self) -> None:
        """Puts the state back to the last commit."""
        self._state.rollback()
        self._ledger.rollback()
        if self._admission is not None:
            self._admission.rollback()

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
        if self._admission is not None:
            chunks += self._admission.due_parts(with_state=bool(chunks))
        return chunks

    @property
    def chunk_count(self) -> int:
        """How many chunks the whole state has."""
        return -(-len(self._symbols.names) // self._state.chunk_symbols)

    def encode_chunk(self, chunk: int) -> bytes:
        """Returns a chunk as it is now, changed or not; nothing is noted."""
        return self._state.encode_chunk(chunk, self._symbols.names)

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Loads a stored chunk; chunks come in ascending order."""
        if self._admission is not None and self._admission.load(chunk, payload):
            return
        names, arrays = self._state.decode_chunk(payload)
        slots = np.array([self._symbols.intern(name) for name in names], np.int32)
        self._state.ensure(len(self._symbols))
        self._state.load(slots, arrays, next_offset)
        self._ledger.loaded(chunk, len(names))
        self._noted_symbols = len(self._symbols)

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
        rows = np.flatnonzero(misplaced)
        reasons: dict[int, str] = {}
        for message, code in zip(
            ticks.message[rows].tolist(), ticks.code[rows].tolist(), strict=True
        ):
            reasons.setdefault(
                message,
                f"expected {names[code]} on partition {wrong[code]} (murmur2 of the symbol), was "
                f"on {self.partition}; use murmur2_random as partitioner",
            )
        merged = merge_refusals(refused, rows_by_message(ticks, rows), reasons, MISPLACED)
        return select_ticks(ticks, ~misplaced), merged

    def _note_new_symbols(self, first_offset: int, first_row: int) -> None:
        """Makes new symbols due for storing, also those that get no row.

        A restart gives slots in the order of what was stored; a symbol that is missing there would
        move all that came after it.
        """
        first, self._noted_symbols = self._noted_symbols, len(self._symbols)
        if first < self._noted_symbols:
            self._make_room()
            slots = np.arange(first, self._noted_symbols, dtype=np.int32)
            self._ledger.touched(slots, first_offset, first_row, time.monotonic())

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
        groups: Groups | None = None,
    ) -> None:
        """Advances the state.

        `positions` are the rows' places in the batch where some were left out, `groups` the rows
        by symbol where they are known.
        """
        self._make_room()
        rows = len(ticks.code)
        if self._out.shape[1] < rows:
            self._out = np.empty((self._features, max(rows, 4096, 2 * self._out.shape[1])))
        order, starts, slots = groups or group_by_slot(ticks.code, self._workspace)
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
