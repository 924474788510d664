"""The receiving half of a stream: rows that wait to be written to it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from grpc_bridge.fanout.delivery import Delivery
from grpc_bridge.fanout.encode import EncodedBlock
from grpc_bridge.tick_sender import TickSender
from schemas.errors import MyStocksError


class RowSource(Protocol):
    """A listener or a subscription of the hub."""

    @property
    def queued_bytes(self) -> int:
        """Encoded rows that wait."""

    @property
    def lag_rows(self) -> int:
        """Rows that wait."""

    @property
    def token(self) -> bytes:
        """Serialized ResumeToken after what was taken."""

    async def take(self) -> Delivery:
        """Waits for rows."""

    def take_nowait(self) -> Delivery | None:
        """Returns rows that are there, or None."""


class RowFeed:
    """Takes rows from the hub and gives out those that a stream is to have.

    One delivery is taken ahead of the reader; the rest waits in the hub, bounded and by policy.

    Args:
        source: Where rows come from.
        sender: Rows are those of its ticks: a partition's begin with the first block that reaches
            an offset acknowledged to it. None passes every row.
        wake: Called when rows may be ready, or the source has failed.

    Attributes:
        rows_sent: Rows given out.
        token: Serialized ResumeToken that goes on after them.
        error: Why there will be no more.
    """

    def __init__(
        self, source: RowSource, sender: TickSender | None, wake: Callable[[], None]
    ) -> None:
        self.rows_sent = 0
        self.token = source.token
        self.error: MyStocksError | None = None
        self._source = source
        self._sender = sender
        self._wake = wake
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._pump())

    @property
    def queued_bytes(self) -> int:
        """Encoded rows that wait."""
        return self._bytes + self._source.queued_bytes

    @property
    def lag_rows(self) -> int:
        """Rows that wait."""
        return sum(delivery.rows for delivery in self._queue) + self._source.lag_rows

    @property
    def waiting(self) -> bool:
        """Whether `take` may return something."""
        return bool(self._queue)

    def take(self, max_bytes: int) -> list[EncodedBlock] | None:
        """Returns blocks to write, none or more; None where nothing is ready.

        `token` goes on after them.

        Args:
            max_bytes: No further delivery is added once there are so many.
        """
        taken: list[EncodedBlock] = []
        size, any_ready = 0, False
        while self._queue and size < max_bytes:
            delivery = self._queue[0]
            if self._sender is None:
                wanted = delivery.blocks
            else:
                ready = self._judge(delivery, self._sender)
                if ready is None:
                    break
                wanted = ready
            self._queue.popleft()
            self._bytes -= _size(delivery)
            self.token = delivery.token
            any_ready = True
            taken += wanted
            size += sum(len(block.data) for block in wanted)
            self.rows_sent += sum(block.rows for block in wanted)
        if any_ready:
            self._room.set()
        return taken if any_ready else None

    def finish(self) -> None:
        """Takes what the source still has; nothing comes afterwards."""
        self._task.cancel()
        while (delivery := self._source.take_nowait()) is not None:
            self._append(delivery)

    async def close(self) -> None:
        """Ends the task."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            while True:
                self._append(await self._source.take())
                self._wake()
                while self._queue:
                    self._room.clear()
                    await self._room.wait()
        except MyStocksError as error:
            self.error = error
            self._wake()

    def _append(self, delivery: Delivery) -> None:
        self._queue.append(delivery)
        self._bytes += _size(delivery)

    @staticmethod
    def _judge(delivery: Delivery, sender: TickSender) -> list[EncodedBlock] | None:
        """Returns the blocks to write, or None while an acknowledgement has to decide.

        Nothing overtakes a block that waits, so that the token stays true.
        """
        wanted = []
        for block in delivery.blocks:
            first = sender.first_offset.get(block.partition)
            if first is None:
                if sender.in_flight.get(block.partition, 0):
                    return None
            elif block.source_last_offset >= first:
                wanted.append(block)
        return wanted


def _size(delivery: Delivery) -> int:
    return sum(len(block.data) for block in delivery.blocks)
