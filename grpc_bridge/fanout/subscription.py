"""One reader: first its past, then the channel that it shares with others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Self

from grpc_bridge.fanout.channel import Channel, Link
from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import Delivery, in_parts
from grpc_bridge.fanout.encode import Pick
from grpc_bridge.fanout.errors import SlowReaderError, StreamCutError, StreamEndedError
from grpc_bridge.fanout.history import History
from grpc_bridge.fanout.mailbox import Mailbox
from grpc_bridge.fanout.record import Columns, FeatureRecord
from schemas.errors import MyStocksError, UnavailableError

if TYPE_CHECKING:
    from grpc_bridge.fanout.feed import Feed

Offer = tuple[FeatureRecord, Columns, Pick]


class Subscription:
    """Iterates over serialized responses; made by `FeatureHub.subscribe`. One task may read it.

    Args:
        feed: Of the set.
        choice: What is shown.
        history: From where it begins to the present; None begins now.
        latest: Whether only the newest row of a symbol is kept while the reader is busy.
        queue_bytes: Encoded rows that may wait; beyond, the reader is too slow for every row.

    Attributes:
        latest: As given.
        rows_sent: Rows delivered so far.
        token: Serialized ResumeToken that goes on after what was passed on: everything delivered
            but the newest delivery, until the next one is asked for.
    """

    def __init__(
        self,
        feed: Feed,
        choice: Choice,
        history: History | None,
        *,
        latest: bool = False,
        queue_bytes: int,
    ) -> None:
        self.rows_sent = 0
        self._feed = feed
        self._choice = choice
        self._history = history
        self.latest = latest
        self._queue_bytes = queue_bytes
        self._begun = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: MyStocksError | None = None
        self._channel: Channel | None = None
        self._link: Link | None = None  # the last one read; None if links were left out
        self._mailbox = Mailbox(choice)
        self._offered: list[Offer] = []  # not published yet
        self._unread: list[Offer] = []  # in the one link that waits
        self._parts: deque[Delivery] = deque()  # of what the mailbox had
        if history is None:
            self._join()
            self.token = feed.token
        else:
            self.token = history.token
        self._next_token = self.token

    @property
    def queued_bytes(self) -> int:
        """Encoded rows that wait for the reader, in bytes."""
        if self._channel is None:
            return 0
        parts = sum([part.size for part in self._parts])
        if self._link is None:
            return parts + self._mailbox.size
        return parts + self._channel.head.end - self._link.end

    @property
    def lag_rows(self) -> int:
        """Rows that wait for the reader; of the past, those of all symbols."""
        if self._history is not None:
            return self._feed.rows_after(self._history.rows)
        if self._channel is None:
            return 0
        parts = sum([part.rows for part in self._parts])
        if self._link is None:
            return parts + self._mailbox.rows
        return parts + self._channel.head.rows_end - self._link.rows_end

    async def take(self) -> Delivery:
        """Returns what comes next, as soon as there is something; the first one has no blocks.

        Raises:
            StreamEndedError: The reader was too slow, or the bridge stops.
            StartDeletedError: Rows were deleted before they could be read.
            BadSelectionError: The set does not have a feature that was asked for.
            UnavailableError: The broker does not answer.
        """
        return (await self._next())[0]

    def take_nowait(self) -> Delivery | None:
        """Returns what is there of the present, also what would still be lingered over, or None.

        Raises:
            StreamEndedError: As `take`.
        """
        self.token = self._next_token
        if self._channel is not None:
            self._feed.publish(self._channel)
        found = self._live()
        return None if found is None else found[0]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        delivery, before, link = await self._next()
        if self._channel is not None and before is not None and link is not None:
            return self._channel.response(before, delivery, link)
        return delivery.response()

    def offered(self, record: FeatureRecord, pick: Pick) -> None:
        """Notes rows for the mailbox."""
        self._offered.append((record, record.columns(), pick))

    def published(self, link: Link) -> None:
        """Wakes the reader, or gives it up if it is too slow."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        read = self._link
        if self.latest:
            self._unread += self._offered
            self._offered.clear()
            if read is None or read.next is not link:
                # There was something to read before, so the reader is busy.
                self._link = None
                for record, columns, pick in self._unread:
                    self._mailbox.add(record, columns, pick)
                self._unread.clear()
        elif read is not None and link.before - read.end > self._queue_bytes:
            waiting = self.queued_bytes
            self.failed(
                SlowReaderError(
                    f"expected at most {self._queue_bytes} bytes of rows to wait for the reader, "
                    f"were {waiting} (MYSTOCKS_GRPC__QUEUE_BYTES); read faster, choose fewer "
                    "symbols or features, or subscribe with the policy LATEST"
                )
            )

    def failed(self, error: MyStocksError) -> None:
        """Ends the subscription; what waits is dropped."""
        self.close()
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Leaves the channel."""
        if self._channel is not None:
            self._feed.leave(self._channel, self)
        if self._history is not None:
            self._history.end_turn()
        self._channel = self._link = self._history = None
        self._mailbox.clear()
        self._parts.clear()
        self._offered.clear()
        self._unread.clear()
        self._error = self._error or StreamEndedError("the subscription was closed")

    async def _next(self) -> tuple[Delivery, Link | None, Link | None]:
        self.token = self._next_token
        if not self._begun:
            self._begun = True
            return Delivery((), self.token, 0), None, None
        while self._history is not None and self._error is None:
            delivery = await self._past(self._history)
            if delivery is not None:
                return delivery, None, None
        while (found := self._live()) is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return found

    async def _past(self, history: History) -> Delivery | None:
        """Returns what comes next of the past; None if the reader is in the present now."""
        try:
            delivery = await history.next()
            # Whoever waited until the reader has taken its last part would find new rows, and many
            # readers would never arrive.
            if self._error is None and (delivery is None or history.at_present):
                history.end_turn()
                self._join()
        except (StreamEndedError, UnavailableError) as error:
            self.failed(
                error if isinstance(error, StreamEndedError) else StreamCutError(str(error))
            )
            return None
        if delivery is not None:
            self._count(delivery)
        return delivery

    def _join(self) -> None:
        self._history = None
        self._channel = self._feed.join(self._choice, self)
        self._link = self._channel.head

    def _live(self) -> tuple[Delivery, Link | None, Link | None] | None:
        if isinstance(self._error, StreamEndedError):
            raise type(self._error)(str(self._error), self.token)
        if self._error is not None:
            raise self._error
        channel, read = self._channel, self._link
        if channel is None:
            return None
        if read is None and not self._parts:
            self._link = channel.head
            blocks = self._mailbox.take(self._feed.name)
            self._parts += in_parts(blocks, self._next_token, channel.head.delivery.token)
        if self._parts:
            delivery = self._parts.popleft()
            self._count(delivery)
            return delivery, None, None
        assert read is not None
        found = channel.take(read)
        if found is None:
            return None
        delivery, link = found
        self._link = link
        self._unread.clear()
        self._count(delivery)
        return delivery, read, link

    def _count(self, delivery: Delivery) -> None:
        self.rows_sent += delivery.rows
        self._next_token = delivery.token


class Listener(Subscription):
    """Rows of symbols that become more, from now on; made by `FeatureHub.listen`.

    Args:
        feed: Of the set.
        symbols: To begin with.
        queue_bytes: Encoded rows that may wait.

    Attributes:
        symbols: Those whose rows it delivers.
    """

    def __init__(self, feed: Feed, symbols: AbstractSet[str], *, queue_bytes: int) -> None:
        self.symbols: AbstractSet[str] = set(symbols)
        super().__init__(feed, Choice(self.symbols), None, queue_bytes=queue_bytes)
        self._begun = True  # there is no empty delivery at first

    def _join(self) -> None:
        self._channel = self._feed.join_alone(self._choice, self)
        self._link = self._channel.head

    def add_symbols(self, symbols: AbstractSet[str]) -> None:
        """Also delivers the rows of these symbols that are read from now on."""
        if self._channel is not None:
            self._feed.widen(self._channel, symbols)
