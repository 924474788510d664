"""Finds where every partition of a new run begins, from which state, and where it ends."""

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas import headers as names
from schemas.requests import Code, RequestFailedError
from streams.kafka.archive import ArchivedState
from streams.kafka.batch import header
from streams.kafka.clients import CALL_TIMEOUT_S
from streams.kafka.errors import KafkaUnavailableError, kafka_error
from streams.kafka.feature_positions import Marks, offsets_since, watermarks
from streams.kafka.replay.plan import PartitionPlan
from streams.kafka.snapshots import CommitMark


@dataclass(frozen=True, slots=True)
class LiveSet:
    """What is known of the live feature set, of whose rows the replay's are to be.

    Attributes:
        output: Its topic.
        group: Its consumer group.
        set_hash: Identity of the computation.
    """

    output: str
    group: str
    set_hash: str


class Planner:
    """Plans runs over one source topic.

    Args:
        consumer: Outside any group; its assignment is replaced.
        group_reader: A consumer whose group is the live set's; only its offsets are asked for.
        source: Topic to read.
        live: The live set.
        archive: Archived snapshots of the live set.
    """

    def __init__(
        self,
        consumer: Consumer,
        group_reader: Consumer,
        source: str,
        live: LiveSet,
        archive: ArchivedState,
    ) -> None:
        self._consumer = consumer
        self._group_reader = group_reader
        self._source = source
        self._live = live
        self._archive = archive

    def plan(
        self,
        partitions: int,
        live_partitions: int,
        start_ns: int,
        *,
        cold: bool,
        request: str,
        output_id: str,
    ) -> dict[int, PartitionPlan]:
        """Returns the plan of every partition.

        Args:
            partitions: Of the source.
            live_partitions: Of the live set's output; 0 where there is none.
            start_ns: Event time of the first row, nanoseconds since 1970 (UTC).
            cold: Whether to begin with empty state.
            request: Hash of what is replayed.
            output_id: Id of the output topic.

        Raises:
            RequestFailedError: FAILED_PRECONDITION: the ticks of the origin were deleted, and no
                archived snapshot is left.
            KafkaUnavailableError: The broker does not answer.
        """
        try:
            marks = watermarks(self._consumer, self._source, range(partitions))
            since = offsets_since(self._consumer, self._source, marks, start_ns)
            origins = {} if cold else self._origins(marks, live_partitions, start_ns)
        except KafkaException as error:
            raise KafkaUnavailableError(
                f"expected the offsets of {self._source}, got none ({kafka_error(error).str()}); "
                "check the broker"
            ) from error
        plans = {}
        for partition, (low, high) in marks.items():
            emit_from = min(max(since[partition], low), high)
            if cold:
                begin, cycle = emit_from, ""
                # Not every tick from that offset on is in the state.
                origin = f"{partition}:{begin}@{start_ns}"
            else:
                origin = origins[partition]
                begin, cycle = self._begin(partition, origin, low, emit_from)
            plans[partition] = PartitionPlan(
                partition, begin, emit_from, high, origin, request, output_id, cycle
            )
        return plans

    def _begin(self, partition: int, origin: str, low: int, emit_from: int) -> tuple[int, str]:
        """Returns where to begin reading, and the snapshot to load."""
        offset = int(origin.rpartition(":")[2])
        # State that begins after the range's first tick has seen nothing before it.
        if offset >= emit_from and offset >= low:
            return offset, ""
        found = self._archive.newest(partition, origin, emit_from)
        if found is not None and found.begin >= low:
            return found.begin, found.cycle
        if offset < low:
            raise RequestFailedError(
                Code.FAILED_PRECONDITION,
                f"expected {self._source} {partition} from offset {offset} on, where the state of "
                f"the live features began, or an archived snapshot from before the range; the log "
                f"begins at {low} and {self._archive.topic} has none. Give --cold (cold=true) to "
                "begin with empty state at the start, whose rows then differ from those of live",
                field="cold",
            )
        return offset, ""

    def _origins(
        self, marks: Mapping[int, Marks], live_partitions: int, start_ns: int
    ) -> dict[int, str]:
        """Returns where the state of the rows of a time began.

        The first live row of that time says it; past the last one the group's commit does. A set
        that never ran would begin with the log.
        """
        current = self._committed_origins(marks)
        rows = self._first_rows(live_partitions, start_ns)
        found = {}
        for partition, (low, _) in marks.items():
            row = rows.get(partition)
            origin = None
            if row is not None and header(row.headers(), names.SET_HASH) == self._live.set_hash:
                origin = header(row.headers(), names.ORIGIN)
            origin = origin or current.get(partition) or f"{partition}:{low}"
            usable = origin.rpartition(":")[2].isdigit()
            found[partition] = origin if usable else f"{partition}:{low}"
        return found

    def _committed_origins(self, marks: Mapping[int, Marks]) -> dict[int, str]:
        places = [TopicPartition(self._source, p) for p in marks]
        found = {}
        for place in self._group_reader.committed(places, timeout=CALL_TIMEOUT_S):
            mark = CommitMark.decode(place.metadata) if place.offset >= 0 else None
            if mark is not None and mark.set_hash == self._live.set_hash:
                found[place.partition] = mark.origin
        return found

    def _first_rows(self, partitions: int, start_ns: int) -> dict[int, Message]:
        """Returns the first live record with rows of this time or later, by partition."""
        topic = self._live.output
        places = [TopicPartition(topic, p, start_ns // 1_000_000) for p in range(partitions)]
        if not places:
            return {}
        found = self._consumer.offsets_for_times(places, timeout=CALL_TIMEOUT_S)
        waiting = {place.partition: place.offset for place in found if place.offset >= 0}
        rows: dict[int, Message] = {}
        for partition, offset in waiting.items():
            self._consumer.assign([TopicPartition(topic, partition, offset)])
            message = self._consumer.poll(CALL_TIMEOUT_S)
            if message is not None and message.error() is None:
                rows[partition] = message
        self._consumer.unassign()
        return rows
