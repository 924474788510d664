"""Readers of the same choice share one log of encoded blocks.

The log is a chain. Each reader holds the link it has read up to, so what every reader has passed is
freed by itself, and the bytes between a reader's link and the head are its queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from grpc_bridge.fanout.choice import Choice
from grpc_bridge.fanout.delivery import MAX_RESPONSE_BYTES, Delivery
from grpc_bridge.fanout.encode import EncodedBlock, Pick, encode_record, pick_rows
from grpc_bridge.fanout.record import FeatureRecord
from grpc_bridge.fanout.store import RecordStore
from schemas.errors import MyStocksError


class Link:
    """Blocks that were published together.

    Attributes:
        delivery: The blocks.
        before: Bytes published before these blocks.
        end: Bytes published up to here.
        rows_end: Rows published up to here.
        next: The link after this one.
    """

    __slots__ = ("before", "delivery", "end", "next", "rows_end")

    def __init__(self, delivery: Delivery, before: int, rows_before: int) -> None:
        self.delivery = delivery
        self.before = before
        self.end = before + sum([len(block.data) for block in delivery.blocks])
        self.rows_end = rows_before + delivery.rows
        self.next: Link | None = None


class ChannelReader(Protocol):
    """What a channel tells its readers.

    Attributes:
        latest: Whether it wants to be told about rows before they are published.
    """

    latest: bool

    def offered(self, record: FeatureRecord, pick: Pick) -> None:
        """These rows of a record will be in the next link."""

    def published(self, link: Link) -> None:
        """A link was added."""

    def failed(self, error: MyStocksError) -> None:
        """There will be no more links."""


class Channel:
    """The log of one choice.

    Args:
        feature_set: Name of the set.
        choice: What is shown.
        token: Where the log begins.
        alone: Whether the symbols of the choice are a set that grows, so that nobody shares it.

    Attributes:
        alone: As given.
        readers: Who is told about new links.
        conflating: Those of them who are told about rows, too.
        head: The newest link.
        pending_bytes: Offered and not published yet.
    """

    def __init__(
        self, feature_set: str, choice: Choice, token: bytes, *, alone: bool = False
    ) -> None:
        self.choice = choice
        self.alone = alone
        self.readers: list[ChannelReader] = []
        self.conflating: list[ChannelReader] = []
        self.head = Link(Delivery((), token, 0), 0, 0)
        self._set = feature_set
        self._pending: list[EncodedBlock] = []
        self.pending_bytes = 0
        self._joined: tuple[Link, Link, bytes] | None = None

    def add(self, reader: ChannelReader) -> None:
        """Adds a reader."""
        self.readers.append(reader)
        if reader.latest:
            self.conflating.append(reader)

    def remove(self, reader: ChannelReader) -> None:
        """Takes a reader out."""
        if reader in self.readers:
            self.readers.remove(reader)
        if reader in self.conflating:
            self.conflating.remove(reader)

    def offer(self, record: FeatureRecord, seen: int, store: RecordStore) -> bool:
        """Takes over the rows of a record that the choice shows.

        Args:
            record: The record.
            seen: So many of its rows were in the topic before.
            store: Of blocks that are shared with others.

        Returns:
            Whether there is something to publish.
        """
        pick = pick_rows(record, self.choice, seen)
        if pick is None:
            return False
        if self.alone:
            block = encode_record(self._set, record, self.choice, pick)
        else:
            block = store.block(record, self.choice, pick, seen)
        self._pending.append(block)
        self.pending_bytes += len(block.data)
        for reader in self.conflating:
            reader.offered(record, pick)
        return True

    def publish(self, token: bytes) -> None:
        """Adds what was offered as one link.

        Args:
            token: Where to go on after it.
        """
        if not self._pending:
            return
        blocks, self._pending, self.pending_bytes = tuple(self._pending), [], 0
        link = Link(Delivery(blocks, token, _rows(blocks)), self.head.end, self.head.rows_end)
        self.head.next = link
        self.head = link
        for reader in tuple(self.readers):
            reader.published(link)

    def take(self, after: Link) -> tuple[Delivery, Link] | None:
        """Returns what follows a link, several links together up to a size, and the last of them.

        Returns:
            None if nothing follows.
        """
        first = after.next
        if first is None:
            return None
        if first.next is None:
            return first.delivery, first
        last, limit = first, first.before + MAX_RESPONSE_BYTES
        blocks: list[EncodedBlock] = list(first.delivery.blocks)
        while (link := last.next) is not None and link.end <= limit:
            blocks += link.delivery.blocks
            last = link
        return Delivery(blocks, last.delivery.token, _rows(blocks)), last

    def response(self, after: Link, delivery: Delivery, last: Link) -> bytes:
        """Returns the serialized response of a delivery that `take` gave; often asked twice."""
        joined = self._joined
        if joined is not None and joined[0] is after and joined[1] is last:
            return joined[2]
        data = delivery.response()
        self._joined = (after, last, data)
        return data


def _rows(blocks: Sequence[EncodedBlock]) -> int:
    return sum([block.rows for block in blocks])
