"""What the loop expects of the code that computes, and of the tables it feeds."""

from collections.abc import Sequence
from typing import Any, Protocol

from schemas.processing import LatestRows, MessageBatch, Produced


class PartitionTask(Protocol):
    """Computes the rows of one partition and owns its state."""

    def process(self, batch: MessageBatch, first_row: int) -> Produced:
        """Advances the state over a batch and returns its rows, numbered from `first_row`."""

    def on_clock(self, now_ns: int) -> Produced | None:
        """Acts by the clock: called a few times a second, whether or not anything arrives.

        Not called while messages wait in the log, see `PartitionClock`.

        The log does not say when this happened, so a replay does not repeat it: `due_chunks` must
        then return every chunk that it changed, before the next commit.

        Args:
            now_ns: Wall clock, nanoseconds since 1970 (UTC).

        Returns:
            Blocks to write, without numbered rows; None where nothing was changed.
        """

    def replay(self, batch: MessageBatch, first_row: int) -> int:
        """Advances restored state over a batch without output.

        Returns:
            Number of rows in the batch, those included that the restored state already has.
        """

    def shift_rows(self, distance: int) -> None:
        """Adds `distance` to the identity of every row so far."""

    def commit(self) -> None:
        """Makes everything since the last commit permanent."""

    def rollback(self) -> None:
        """Puts the state back to the last commit."""

    def resume_point(self, offset: int, row: int) -> tuple[int, int]:
        """Returns offset and row from which stored chunks must be replayed.

        Args:
            offset: Next offset, the answer where nothing has changed.
            row: Next row, likewise.
        """

    def due_chunks(self, now: float, budget_bytes: int) -> list[tuple[int, bytes]]:
        """Returns chunks of state to store with the next commit, the most urgent first.

        Args:
            now: Monotonic time in seconds.
            budget_bytes: At most about this much. Chunks that the clock has changed since the last
                commit are returned whatever it is, with those that have to be stored before them.
        """

    def load_chunk(self, chunk: int, payload: bytes, next_offset: int) -> None:
        """Loads a stored chunk whose state includes everything below `next_offset`."""

    def reset(self) -> None:
        """Empties the state."""

    def take_latest(self) -> LatestRows | None:
        """Returns the newest rows of the symbols touched since the last call, or None."""

    def touch_all(self) -> None:
        """Makes the next `take_latest` return every symbol."""


class TaskFactory(Protocol):
    """Makes the task of a newly assigned partition."""

    def __call__(self, partition: int) -> PartitionTask:
        """Returns a task with empty state."""


class LogEnds(Protocol):
    """Where the partitions of the source end, asked for without waiting."""

    def ask(self, partitions: Sequence[int]) -> None:
        """Asks for the ends that these partitions have from now on."""

    def answer(self) -> dict[int, int] | None:
        """Returns the offset after the last committed record of the partitions last asked for.

        Partitions whose broker did not say are missing. None is not known yet.
        """


class Table(Protocol):
    """A table of the latest rows outside Kafka; it follows the topic and never decides."""

    @property
    def ready(self) -> bool:
        """Whether rows can be offered now."""

    @property
    def needs_everything(self) -> bool:
        """Whether it lost touch, so that every symbol has to be offered again."""

    def offer(self, rows: Sequence[LatestRows]) -> None:
        """Takes rows to write; returns at once."""

    def close(self, timeout_s: float) -> None:
        """Writes what was offered and stops."""


class GroupConsumer(Protocol):
    """The part of `confluent_kafka.Consumer` that the loop uses."""

    def subscribe(self, topics: list[str], **callbacks: Any) -> None: ...  # noqa: D102
    def consume(self, num_messages: int, timeout: float) -> list[Any]: ...  # noqa: D102
    def assign(self, partitions: list[Any]) -> None: ...  # noqa: D102
    def incremental_assign(self, partitions: list[Any]) -> None: ...  # noqa: D102
    def committed(self, partitions: list[Any], timeout: float) -> list[Any]: ...  # noqa: D102
    def offsets_for_times(self, partitions: list[Any], timeout: float) -> list[Any]: ...  # noqa: D102
    def consumer_group_metadata(self) -> Any: ...  # noqa: D102
    def commit(self, *, offsets: list[Any], asynchronous: bool) -> Any: ...  # noqa: D102
    def pause(self, partitions: list[Any]) -> None: ...  # noqa: D102
    def resume(self, partitions: list[Any]) -> None: ...  # noqa: D102
    def seek(self, partition: Any) -> None: ...  # noqa: D102
    def get_watermark_offsets(  # noqa: D102
        self, partition: Any, timeout: float = ..., cached: bool = ...
    ) -> tuple[int, int] | None: ...
    def close(self) -> None: ...  # noqa: D102
