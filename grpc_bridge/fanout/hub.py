"""The one object of a bridge process through which all streams get their rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping

import structlog

from grpc_bridge.fanout.broker import Broker
from grpc_bridge.fanout.choice import checked_symbols, choice_of, set_name
from grpc_bridge.fanout.errors import StreamCutError, TopicReplacedError, UnknownFeatureSetError
from grpc_bridge.fanout.feed import FeatureSetInfo, Feed
from grpc_bridge.fanout.history import History
from grpc_bridge.fanout.past_reader import PastReader
from grpc_bridge.fanout.start import beginning_of
from grpc_bridge.fanout.store import RECORD_BYTES
from grpc_bridge.fanout.subscription import Listener, Subscription
from mystocks.v1.realtime_pb2 import (
    SLOW_READER_POLICY_LATEST,
    FeatureSelection,
    SubscribeFeaturesRequest,
)
from schemas.errors import MyStocksError
from schemas.settings import Settings

_log = structlog.get_logger(__name__)


class FeatureHub:
    """Feeds by feature set. Belongs to the event loop in which `start` is called.

    Args:
        settings: Kafka, the default set, and the bounds of section ``grpc``.
        store_bytes: Of values of a set's records that are kept for readers of the past.
        check_topics_s: How soon it is noticed that a topic was deleted and created again.
    """

    def __init__(
        self, settings: Settings, *, store_bytes: int = RECORD_BYTES, check_topics_s: float = 10.0
    ) -> None:
        self._settings = settings
        self._store_bytes = store_bytes
        self._check_topics_s = check_topics_s
        self._feeds: dict[str, asyncio.Task[Feed]] = {}
        self._closed = False

    async def start(self) -> None:
        """Begins to read the set of the settings, if its topic is there."""
        self._broker = Broker(self._settings)
        self._past = PastReader(self._settings)
        self._checking = asyncio.create_task(self._check_topics())
        try:
            await self._feed(self._settings.features.name)
        except MyStocksError as error:
            _log.warning("feature set not read yet", reason=str(error))

    async def close(self) -> None:
        """Ends all subscriptions and frees threads and connections."""
        if self._closed:
            return
        self._closed = True
        self._checking.cancel()
        for task in self._feeds.values():
            task.cancel()
        opened = await asyncio.gather(*self._feeds.values(), return_exceptions=True)
        for feed in opened:
            if isinstance(feed, Feed):
                await feed.close()
        await self._past.close()

    async def describe(self, feature_set: str = "") -> FeatureSetInfo:
        """Returns what is known of a set.

        Raises:
            BadSelectionError: It cannot be the name of a set.
            UnknownFeatureSetError: There is no such set.
            UnavailableError: The broker does not answer.
        """
        return (await self._feed(self._named(feature_set))).info

    @contextlib.asynccontextmanager
    async def subscribe(
        self, selection: FeatureSelection, start: SubscribeFeaturesRequest | None = None
    ) -> AsyncIterator[Subscription]:
        """Yields a subscription, which is freed at the end of the block.

        Args:
            selection: Set, symbols, features, and what to do when the reader is slow.
            start: Its field ``start`` is where to begin; None begins with the next row.

        Raises:
            BadSelectionError: A field is not acceptable.
            UnknownFeatureSetError: There is no such set.
            StartDeletedError: The rows to begin with are not in the topic.
            UnavailableError: The broker does not answer.
        """
        since = start is not None and start.WhichOneof("start") == "since_ns"
        choice = choice_of(selection, start.since_ns if start is not None and since else None)
        feed = await self._feed(self._named(selection.feature_set, "selection.feature_set"))
        feed.check(choice)
        beginning = await beginning_of(feed, start)
        subscription = Subscription(
            feed,
            choice,
            None if beginning is None else History(feed, choice, beginning),
            latest=selection.policy == SLOW_READER_POLICY_LATEST,
            queue_bytes=self._settings.grpc.queue_bytes,
        )
        with contextlib.closing(subscription):
            yield subscription

    @contextlib.asynccontextmanager
    async def listen(
        self, feature_set: str = "", symbols: Iterable[str] = ()
    ) -> AsyncIterator[Listener]:
        """Yields a listener for rows that are read from now on.

        Raises:
            BadSelectionError: A field is not acceptable.
            UnknownFeatureSetError: There is no such set.
            UnavailableError: The broker does not answer.
        """
        wanted = checked_symbols(tuple(symbols))
        feed = await self._feed(self._named(feature_set))
        listener = Listener(feed, wanted, queue_bytes=self._settings.grpc.queue_bytes)
        with contextlib.closing(listener):
            yield listener

    def next_rows(self, feature_set: str = "") -> dict[int, int]:
        """Returns the next row of each partition that has had rows."""
        feed = self._opened(feature_set)
        return dict(feed.next_row) if feed is not None else {}

    async def caught_up(
        self,
        feature_set: str = "",
        offsets: Mapping[int, int] | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """Waits until the topic was read up to some offsets.

        Args:
            feature_set: The set.
            offsets: By partition; None for the ends as of now.
            timeout_s: Longest wait.

        Raises:
            UnavailableError: It took too long.
            MyStocksError: As `describe`.
        """
        feed = await self._feed(self._named(feature_set))
        await feed.caught_up(await feed.ends() if offsets is None else offsets, timeout_s)

    def _named(self, feature_set: str, field: str = "feature_set") -> str:
        return set_name(feature_set, self._settings.features.name, field)

    def _opened(self, feature_set: str) -> Feed | None:
        task = self._feeds.get(self._named(feature_set))
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    async def _feed(self, name: str) -> Feed:
        if self._closed:
            raise StreamCutError("expected the bridge to go on, it stops; try again")
        found = self._opened(name)
        if found is not None:
            if found.error is None:
                return found
            await self._feeds.pop(name).result().close()
        task = self._feeds.get(name)
        if task is None or task.done():
            task = self._feeds[name] = asyncio.create_task(self._open(name))
        try:
            return await asyncio.shield(task)
        except MyStocksError:
            if self._feeds.get(name) is task:
                del self._feeds[name]
            raise

    async def _open(self, name: str) -> Feed:
        facts = await self._broker.facts(name, self._past)
        return Feed(
            name,
            facts,
            self._broker,
            self._past,
            linger_s=self._settings.grpc.linger_ms / 1000,
            store_bytes=self._store_bytes,
        )

    async def _check_topics(self) -> None:
        """Ends feeds whose topic is not the one any more that they began with."""
        while True:
            await asyncio.sleep(self._check_topics_s)
            self._past.rest(self._check_topics_s)
            for name in tuple(self._feeds):
                feed = self._opened(name)
                if feed is None or feed.error is not None:
                    continue
                try:
                    topic_id, _ = await self._broker.describe(name)
                except UnknownFeatureSetError:
                    topic_id = ""
                except MyStocksError:
                    continue
                if topic_id != feed.topic_id.decode():
                    feed.fail(
                        TopicReplacedError(
                            f"expected the topic {feed.topic} as it was, was deleted; subscribe "
                            "again from 'earliest'"
                        )
                    )
