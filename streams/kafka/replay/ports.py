"""What a replay expects of the code that computes."""

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from schemas.processing import MessageBatch


class SelectedRows(Protocol):
    """Rows of one batch that belong to the replay, in source order.

    Attributes:
        event_time: int64 [n], nanoseconds since 1970 (UTC).
        offsets: int64 [n], offset of the message that each row came from.
    """

    event_time: "NDArray[np.int64]"
    offsets: "NDArray[np.int64]"

    def encode(self, low: int, high: int) -> bytes:
        """Returns the record value of the rows [low, high)."""

    def keep(self) -> "SelectedRows":
        """Returns the rows in memory of their own; before that they last until the next batch."""


class ReplayTask(Protocol):
    """Computes one partition again and owns its state.

    Attributes:
        tick_times: int64 [n], event times of all ticks of the last batch given to `select`, also of
            those that were not selected, in the order of the log; nanoseconds since 1970 (UTC).
            Valid until the next batch.
        tick_messages: Integers [n], index in that batch of each one's message.
    """

    tick_times: "NDArray[np.int64]"
    tick_messages: "NDArray[Any]"

    @property
    def rows_per_record(self) -> int:
        """Most rows that fit into one record."""

    def replay(self, batch: MessageBatch, first_row: int) -> int:
        """Advances the state over a batch without rows; returns how many there would be."""

    def select(self, batch: MessageBatch) -> SelectedRows | None:
        """Advances the state over a batch and returns those of its rows that are wanted."""

    def finish(self) -> SelectedRows | None:
        """Returns rows that the end of the log makes certain; the same however often it ends."""

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Loads a stored chunk whose state includes everything below `next_offset`."""
