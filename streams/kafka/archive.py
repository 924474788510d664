"""Archived snapshots of state: from where a replay can begin without the first tick.

Records of ``<group>.state.archive`` are state chunks as in ``<group>.state``. Those of one cycle
hold the whole state of a partition, each as of its own `next_offset`; their headers name the cycle,
and the last one says how many there are.
"""

from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException

from streams.kafka.batch import header
from streams.kafka.errors import KafkaUnavailableError, StateNotRestorableError, kafka_error
from streams.kafka.feature_positions import watermarks
from streams.kafka.replay.reader import LogReader
from streams.kafka.snapshots import ChunkHeader, decode_chunk

# Headers of a record: the cycle, and on its last record the number of chunks.
CYCLE = "cycle"
CHUNKS = "chunks"
_POLL_S = 0.5

Chunks = dict[int, tuple[ChunkHeader, bytes]]


@dataclass(frozen=True, slots=True)
class ArchivedCycle:
    """A complete snapshot of a partition.

    Attributes:
        cycle: Its name.
        begin: Offset from which messages must be replayed on top of it.
    """

    cycle: str
    begin: int


class ArchivedState:
    """Reads the archive of one group; an instance serves one thread.

    Args:
        consumer: Outside any group, reports ends of partitions; its assignment is replaced.
        topic: The archive.
        set_hash: Identity of the computation; other chunks are passed over.
        partitions: Partition count of the source; with another one symbols were elsewhere.
        archived: How many partitions the archive has; 0 where there is none.
    """

    def __init__(
        self, consumer: Consumer, topic: str, set_hash: str, partitions: int, archived: int
    ) -> None:
        self.topic = topic
        self._consumer = consumer
        self._set_hash = set_hash
        self._partitions = partitions
        self._archived = archived
        self._loaded: dict[int, tuple[str, Chunks]] = {}

    def newest(self, partition: int, origin: str, until: int) -> ArchivedCycle | None:
        """Returns the newest snapshot of this origin that has seen no message from `until` on.

        Raises:
            KafkaUnavailableError: The broker does not answer.
        """
        best: tuple[str, Chunks] | None = None
        for cycle, chunks in self._complete(partition):
            heads = [head for head, _ in chunks.values()]
            if all(head.origin == origin and head.next_offset <= until for head in heads):
                best = cycle, chunks
        if best is None:
            return None
        self._loaded[partition] = best
        return ArchivedCycle(best[0], min(head.next_offset for head, _ in best[1].values()))

    def chunks(self, partition: int, cycle: str) -> list[tuple[ChunkHeader, bytes]]:
        """Returns the chunks of a snapshot in ascending order.

        Raises:
            StateNotRestorableError: It was deleted since the replay began.
            KafkaUnavailableError: The broker does not answer.
        """
        found = self._loaded.get(partition)
        if found is None or found[0] != cycle:
            found = next(
                ((name, chunks) for name, chunks in self._complete(partition) if name == cycle),
                None,
            )
        if found is None:
            raise StateNotRestorableError(
                f"expected the snapshot {cycle} of partition {partition} in {self.topic}, with "
                "which the replay began; it was deleted. Take another run id"
            )
        return [found[1][number] for number in sorted(found[1])]

    def _complete(self, partition: int) -> list[tuple[str, Chunks]]:
        """Returns the newest complete cycles of the partition, in the order of the log."""
        if partition >= self._archived:
            return []
        try:
            spans = watermarks(self._consumer, self.topic, [partition])
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected the offsets of {self.topic}, got none ({kafka_error(error).str()}); "
                "check the broker"
            ) from error
        reader = LogReader(self._consumer, self.topic, spans)
        open_cycles: dict[str, Chunks] = {}
        complete: list[tuple[str, Chunks]] = []
        while not reader.exhausted(partition):
            for batch in reader.poll([partition], _POLL_S):
                for message in batch.messages:
                    cycle = header(message.headers(), CYCLE)
                    head, payload = decode_chunk(message.value() or b"")
                    if cycle is None or head.set_hash != self._set_hash:
                        continue
                    if head.partitions != self._partitions:
                        continue
                    chunks = open_cycles.setdefault(cycle, {})
                    chunks[head.chunk] = head, payload
                    count = header(message.headers(), CHUNKS)
                    if count is not None and len(chunks) == int(count):
                        complete.append((cycle, open_cycles.pop(cycle)))
        reader.close()
        return complete
