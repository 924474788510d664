"""Feature rows from the bridge, as they are committed: the blocking form."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from mystocks.sdk.bridge.loop_thread import LoopThread
from mystocks.sdk.bridge.subscription import AsyncSubscription
from mystocks.sdk.frame import FeatureFrame
from mystocks.sdk.rows import FeatureRow


class Subscription:
    """Iterates over the rows of a feature set as they are committed, across reconnections.

    Made by `Client.subscribe`. With the policy ``every_row`` each row identity (partition, row)
    comes exactly once, also when connections are cut or the bridge is restarted; with ``latest`` a
    reader that is behind gets the newest row of each symbol.

    ::

        with client.subscribe("AAPL", start="earliest") as rows:
            for row in rows:
                print(row.event_time_ns, row.price, row.values["sma_20"])
    """

    def __init__(self, core: AsyncSubscription, thread: LoopThread) -> None:
        self._core = core
        self._thread = thread
        thread.run(core.open())

    @property
    def position(self) -> str:
        """Resume token: all rows up to the one last yielded (for `blocks`: frame) are done.

        Keep it, and give it as `start` to go on at exactly the next row, also in another process
        and also to `FeatureSubscriber`.
        """
        return self._core.position

    @property
    def reconnections(self) -> int:
        """How often the stream was opened again after it had stood."""
        return self._core.reconnections

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FeatureRow:
        row = self._core.take_row()
        while row is None:
            if self._core.is_complete or not self._thread.run(self._core.receive()):
                raise StopIteration
            row = self._core.take_row()
        return row

    def blocks(self) -> Iterator[FeatureFrame]:
        """Yields frames instead of rows, which is faster by far.

        `limit` counts rows here too. The boundaries of frames mean nothing.
        """
        while not self._core.is_complete:
            frame = self._core.take_frame()
            if frame is not None:
                yield frame
            elif not self._thread.run(self._core.receive()):
                return

    def close(self) -> None:
        """Ends the subscription; may be called from another thread."""
        self._thread.run(self._core.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
