"""How far the features group has come: its committed offsets, asked for while somebody waits."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from schemas.settings import Settings
from schemas.topics import features_topic
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.ends import first_and_end
from streams.kafka.errors import KafkaUnavailableError, kafka_error

_POLL_S = 0.05
# A group that has never committed has this offset (OFFSET_INVALID).
_NONE_YET = -1001
# What is answered while a leader or a coordinator changes, and for how long that is believed.
_PASSING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
_SETTLE_S = 5.0


class GroupProgress:
    """Waits for the committed offsets of the features group on the source topic.

    Args:
        settings: Servers, group and topic.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.features.source_topic
        self._consumer: Consumer | None = None
        self._partitions = 0
        self._waiting: list[tuple[Mapping[int, int], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects to the broker.

        Raises:
            KafkaUnavailableError: No broker answers, or the topic is missing.
        """
        await asyncio.to_thread(self._connect)
        # Finding the group's coordinator takes long the first time.
        with contextlib.suppress(KafkaUnavailableError):
            await self.committed()

    async def close(self) -> None:
        """Ends the client; who still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _, future in self._waiting:
            future.cancel()
        if self._consumer is not None:
            await asyncio.to_thread(self._consumer.close)

    async def passed(self, offsets: Mapping[int, int]) -> None:
        """Returns once the group has committed positions after these offsets.

        Args:
            offsets: By partition.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((offsets, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll())
        await future

    async def committed(self) -> dict[int, int]:
        """Returns the group's committed position by partition; -1 where it has none.

        Raises:
            KafkaUnavailableError: The broker did not answer.
        """
        return await _asked(self._committed)

    async def ends(self) -> dict[int, int]:
        """Returns the end of the source topic by partition.

        Raises:
            KafkaUnavailableError: The broker did not answer.
        """
        return await _asked(self._ends, self._topic)

    async def feature_ends(self) -> dict[int, int]:
        """Returns the end of the features topic by partition, open transactions included.

        Positions may be committed a moment before the rows that were written with them can be
        read; these are in front of such an end, and not always of a committed one.

        Raises:
            KafkaUnavailableError: The broker did not answer.
        """
        return await _asked(self._ends, features_topic(self._settings.features.name))

    def _connect(self) -> None:
        self._partitions = partition_count(admin_client(self._settings), self._topic)
        self._consumer = Consumer(
            {
                **self._settings.kafka.as_librdkafka(),
                "group.id": self._settings.features_group,
                "enable.auto.commit": False,
                # Ends include open transactions, and committed positions do not wait for them.
                "isolation.level": "read_uncommitted",
                "allow.auto.create.topics": False,
            }
        )

    def _committed(self) -> dict[int, int]:
        assert self._consumer is not None
        asked = [TopicPartition(self._topic, p) for p in range(self._partitions)]
        answer = self._consumer.committed(asked, timeout=CALL_TIMEOUT_S)
        return {part.partition: part.offset if part.offset != _NONE_YET else -1 for part in answer}

    def _ends(self, topic: str) -> dict[int, int]:
        assert self._consumer is not None
        # The administration client's `list_offsets` fails for minutes after a leader has changed.
        return {
            p: first_and_end(self._consumer, TopicPartition(topic, p), CALL_TIMEOUT_S)[1]
            for p in range(self._partitions)
        }

    async def _poll(self) -> None:
        while self._waiting:
            try:
                committed = await self.committed()
            except KafkaUnavailableError:
                # The streams that wait have an idle time-out.
                committed = {}
            still = []
            for offsets, future in self._waiting:
                if future.done():
                    continue
                if all(committed.get(p, -1) > offset for p, offset in offsets.items()):
                    future.set_result(None)
                else:
                    still.append((offsets, future))
            self._waiting = still
            if still:
                await asyncio.sleep(_POLL_S)


async def _asked(question: Callable[..., dict[int, int]], *arguments: str) -> dict[int, int]:
    """Asks again while leaders or coordinators are being found."""
    began = time.monotonic()
    while True:
        try:
            return await asyncio.to_thread(question, *arguments)
        except KafkaException as error:
            found = kafka_error(error)
            passing = found.retriable() or found.code() in _PASSING
            if not passing or time.monotonic() - began > _SETTLE_S:
                raise KafkaUnavailableError(
                    f"expected the broker to tell offsets, did not ({found.str()}); try again"
                ) from error
        await asyncio.sleep(_POLL_S)
