"""What passes between the runtime that moves messages and the code that computes.

The runtime (`streams`) knows offsets and transactions, the computation (`processors`) knows
symbols and values; neither imports the other, both import this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class MessageBatch(Protocol):
    """Messages of one partition that were polled together, in offset order."""

    partition: int

    @property
    def values(self) -> Sequence[bytes | None]:
        """Message values."""

    @property
    def content_types(self) -> list[str | None] | None:
        """Content type of each message; None where no message names one."""

    @property
    def timestamps_ms(self) -> "NDArray[np.int64]":
        """Record timestamps in milliseconds since 1970 (UTC), int64 [n]; -1 is unknown."""

    @property
    def offsets(self) -> "NDArray[np.int64]":
        """Offsets, int64 [n]."""

    @property
    def first_offset(self) -> int:
        """Offset of the first message."""


@dataclass(frozen=True, slots=True)
class Block:
    """One output record: consecutive rows.

    Attributes:
        value: Record value.
        rows: Number of rows in it.
        first_message: Index in the batch of the message that its first row came from.
        last_message: Index in the batch of the message that its last row came from.
        newest_time_ns: Newest event time in it, nanoseconds since 1970 (UTC).
        topic: Where it goes; None is the loop's output topic. Only blocks of that topic have
            numbered rows.
    """

    value: bytes
    rows: int
    first_message: int
    last_message: int
    newest_time_ns: int
    topic: str | None = None


# Kinds of refusals.
UNREADABLE, INVALID, TOO_MANY_SYMBOLS = "unreadable", "invalid", "too_many_symbols"
MISPLACED, LATE_TICK = "misplaced", "late"
# Those of dead letters.
DEAD_LETTER_KINDS = (UNREADABLE, INVALID, TOO_MANY_SYMBOLS, MISPLACED)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message, or some of its rows, that cannot be processed.

    Attributes:
        message: Index in the batch.
        rows: Positions of the refused ticks in the message; None for the whole message.
        reason: What was wrong, in words.
        kind: What kind of thing was wrong, mostly with the first of the rows: the message cannot
            be read, a tick has impossible values, there is no room for its symbol, or (as soon as
            one has it) a symbol belongs on another partition; or ticks come too late.
    """

    message: int
    rows: tuple[int, ...] | None
    reason: str
    kind: str = INVALID


@dataclass(slots=True)
class Produced:
    """What became of one batch.

    Attributes:
        rows: Number of rows computed.
        blocks: Output records, in row order.
        refused: What could not be processed.
        late: What came too late; it goes to the late topic unchanged.
        duplicates: How many ticks were dropped because they had been there before.
        dropped: How many were dropped for other reasons, by reason.
        ticks: How many acceptable ticks there were; None where each gave a row.
        stage_seconds: Time spent by stage.
    """

    rows: int = 0
    blocks: Sequence[Block] = ()
    refused: Sequence[Refusal] = ()
    late: Sequence[Refusal] = ()
    duplicates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    ticks: int | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LatestRows:
    """The newest row of each of some symbols of one partition.

    Attributes:
        partition: Partition of the symbols.
        symbols: Their names.
        event_time: int64 [n], nanoseconds since 1970 (UTC).
        price: float64 [n].
        row: int64 [n], row identities.
        values: float64 [n, features]; NaN is a value that is not warmed up yet.
        newest_row: Highest row identity among all symbols of the partition so far.
        appeared: Of these symbols, those seen for the first time since the last `LatestRows`.
    """

    partition: int
    symbols: Sequence[str]
    event_time: "NDArray[np.int64]"
    price: "NDArray[np.float64]"
    row: "NDArray[np.int64]"
    values: "NDArray[np.float64]"
    newest_row: int
    appeared: frozenset[str] = frozenset()
