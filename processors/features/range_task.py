"""Rows of a range of event time and of a choice of symbols, computed as live computes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from processors.features.state import ChunkLedger
from processors.features.task import BlockEncoder, FeatureTask
from processors.features.tick_rows import select_ticks
from schemas.processing import Block, MessageBatch

if TYPE_CHECKING:
    from schemas.ticks import TickColumns


@dataclass(frozen=True, slots=True)
class RowRange:
    """Which rows are wanted.

    Attributes:
        start_ns: Event time of the first, nanoseconds since 1970 (UTC).
        end_ns: Event time before which the last one is; None is no bound.
        symbols: Only of these; None stands for all.
        cold: Whether ticks before `start_ns` are passed over, as if they had never been.
    """

    start_ns: int
    end_ns: int | None = None
    symbols: frozenset[str] | None = None
    cold: bool = False


class RangeTask(FeatureTask):
    """A `FeatureTask` whose rows are selected before they are encoded.

    Every tick of a wanted symbol advances the state, whatever its time; so the rows are those of
    live bit for bit. Call `choose` before anything else.

    Attributes:
        tick_times: See `streams.kafka.replay.ports.ReplayTask`.
        tick_messages: Likewise.
    """

    tick_times: NDArray[np.int64] = np.empty(0, np.int64)
    tick_messages: NDArray[Any] = tick_times
    _range = RowRange(0)
    _accepted: "TickColumns | None" = None

    def choose(self, wanted: RowRange) -> None:
        """Sets which rows `select` returns."""
        self._range = wanted
        self._wanted = np.empty(0, np.bool_)

    @property
    def rows_per_record(self) -> int:
        """Most rows that fit into one record."""
        return self._rows_per_block

    def select(self, batch: MessageBatch) -> "RangeRows | None":
        """Advances the state over a batch and returns those of its rows that are wanted.

        They are views, valid until the next call; `RangeRows.keep` copies them.
        """
        self._accepted = None
        self.process(batch, 0)
        self.commit()
        ticks = self._accepted
        if ticks is None:
            return None
        inside = ticks.event_time >= self._range.start_ns
        if self._range.end_ns is not None:
            inside &= ticks.event_time < self._range.end_ns
        count = int(inside.sum())
        if not count:
            return None
        rows: slice | NDArray[np.bool_] = slice(0, len(inside)) if count == len(inside) else inside
        return RangeRows(
            self._encode_block,
            self._symbols.names,
            ticks.code[rows],
            ticks.event_time[rows],
            ticks.price[rows],
            self._out[:, : len(inside)][:, rows],
            batch.offsets[ticks.message[rows]],
        )

    def finish(self) -> None:
        """Does nothing: rows come with their ticks."""

    def commit(self) -> None:
        """Makes the state permanent; nothing of it is stored, so nothing waits for that."""
        self._ledger = ChunkLedger(self._state.chunk_symbols, self._interval_s)
        super().commit()

    def _decode(self, batch: MessageBatch) -> Any:
        ticks, refused = super()._decode(batch)
        self.tick_times, self.tick_messages = ticks.event_time, ticks.message
        if len(ticks.code):
            ticks = self._reduced(ticks)
        return ticks, refused

    def _reduced(self, ticks: "TickColumns") -> "TickColumns":
        wanted = None
        if self._range.symbols is not None:
            wanted = self._codes(self._range.symbols)[ticks.code]
        if self._range.cold:
            late_enough = ticks.event_time >= self._range.start_ns
            wanted = late_enough if wanted is None else wanted & late_enough
        if wanted is None or wanted.all():
            return ticks
        return select_ticks(ticks, wanted)

    def _codes(self, symbols: frozenset[str]) -> NDArray[np.bool_]:
        """Returns whether each code is one of these symbols, bool [codes]."""
        names = self._symbols.names
        if len(self._wanted) < len(names):
            more = [name in symbols for name in names[len(self._wanted) :]]
            self._wanted = np.concatenate([self._wanted, np.array(more, np.bool_)])
        return self._wanted

    def _encode(self, ticks: "TickColumns") -> list[Block]:
        self._accepted = ticks
        return []


class RangeRows:
    """Rows in columns; see `streams.kafka.replay.ports.SelectedRows`."""

    def __init__(
        self,
        encode: BlockEncoder,
        names: Sequence[str],
        codes: NDArray[np.int32],
        event_time: NDArray[np.int64],
        price: NDArray[np.float64],
        values: NDArray[np.float64],
        offsets: NDArray[np.int64],
    ) -> None:
        self._encode = encode
        self._names = names
        self._codes = codes
        self.event_time = event_time
        self._price = price
        self._values = values
        self.offsets = offsets

    def encode(self, low: int, high: int) -> bytes:
        """Returns the record value of the rows [low, high)."""
        return self._encode(
            self._codes[low:high],
            self._names,
            self.event_time[low:high],
            self._price[low:high],
            self._values[:, low:high],
        )

    def keep(self) -> "RangeRows":
        """Returns the rows in memory of their own."""
        return RangeRows(
            self._encode,
            self._names,
            self._codes.copy(),
            self.event_time.copy(),
            self._price.copy(),
            self._values.copy(),
            self.offsets,
        )
