"""What `mystocks verify` checks: a features topic against itself and against its ticks."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Message
from numpy.typing import NDArray

from mystocks.feature_tasks import FeatureTasks, source_decoder
from processors.features.task import FeatureTask
from schemas import headers as names
from schemas.settings import Settings
from schemas.ticks import SymbolTable
from streams.kafka.batch import PartitionBatch, by_partition, header
from streams.kafka.bounded_read import TopicReader

# Messages that are computed together; the split does not change a bit of the result.
_MESSAGES = 2000
_MOST_PROBLEMS = 20


@dataclass
class FeatureReport:
    """What was found in a features topic.

    Attributes:
        topic: The topic.
        rows: Rows read.
        gaps: Places where row identities are missing.
        doubles: Rows whose identity was there before.
        disordered: Blocks whose ticks come before those of the block in front.
        recomputed: Rows that were computed again from the ticks.
        differing: Of these, rows that are not equal, bit for bit.
        problems: The first of all these, in sentences.
        notes: What could not be checked, and why.
    """

    topic: str
    rows: int = 0
    gaps: int = 0
    doubles: int = 0
    disordered: int = 0
    recomputed: int = 0
    differing: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.gaps or self.doubles or self.disordered or self.differing)

    def as_json(self) -> dict[str, Any]:
        """This report as one JSON object."""
        return {"ok": self.ok, **asdict(self)}

    def problem(self, text: str) -> None:
        """Notes a problem in words; counts are kept by the caller."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)


@dataclass
class TickReport:
    """What was found in a topic of ticks or of bars.

    Attributes:
        topic: The topic.
        messages: Messages read.
        ticks: Acceptable ticks, or bars, in them.
        refused: Ticks and whole messages that are not acceptable.
        reasons: How often for which reason, the 20 most frequent ones.
        symbols: Number of symbols.
        out_of_order: Ticks older than the newest one of their symbol before them; of bars only
            first versions count.
        duplicates: Ticks with symbol, sequence and event time of an earlier one; bars with symbol,
            end and revision of an earlier one.
        corrections: Bars that are a later version of an earlier one.
        split_symbols: Symbols that are on more than one partition.
    """

    topic: str
    messages: int = 0
    ticks: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    symbols: int = 0
    out_of_order: int = 0
    duplicates: int = 0
    corrections: int = 0
    split_symbols: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong that makes features wrong: a symbol on two partitions."""
        return not self.split_symbols

    def as_json(self) -> dict[str, Any]:
        """This report as one JSON object."""
        return {"ok": self.ok, **asdict(self)}


def verify_ticks(settings: Settings, topic: str) -> TickReport:
    """Reads a topic of ticks or of bars to its end.

    Args:
        settings: Where Kafka is.
        topic: For example ``market.ticks``.
    """
    report, reasons = TickReport(topic), Counter[str]()
    homes: dict[str, int] = {}
    decoder = source_decoder(topic)
    with TopicReader(settings, topic, "verify") as reader:
        for partition in range(reader.partitions):
            symbols = SymbolTable(settings.features.max_symbols)
            newest: dict[int, int] = {}
            seen: set[tuple[int, int, int]] = set()
            for batch in _batches(reader.read(partition)):
                ticks, refused = decoder.decode(
                    batch.values, batch.content_types, batch.timestamps_ms, symbols
                )
                report.messages += len(batch)
                report.ticks += len(ticks.code)
                for refusal in refused:
                    number = 1 if refusal.rows is None else len(refusal.rows)
                    report.refused += number
                    reasons[refusal.reason] += number
                revision = getattr(ticks, "revision", None)
                numbers = ticks.sequence if revision is None else revision
                for code, time, sequence in zip(
                    ticks.code.tolist(), ticks.event_time.tolist(), numbers.tolist(), strict=True
                ):
                    if sequence >= 0:
                        identity = (code, sequence, time)
                        report.duplicates += identity in seen
                        seen.add(identity)
                    if revision is not None and sequence > 0:
                        report.corrections += 1
                        continue
                    before = newest.get(code, time)
                    report.out_of_order += time < before
                    newest[code] = max(before, time)
            for symbol in symbols.names:
                if homes.setdefault(symbol, partition) != partition:
                    report.split_symbols.append(symbol)
    report.symbols = len(homes)
    report.reasons = dict(reasons.most_common(_MOST_PROBLEMS))
    return report


def verify_features(settings: Settings, topic: str, *, recompute: bool = True) -> FeatureReport:
    """Reads a features topic to its end and computes its rows again.

    Args:
        settings: Of the feature set that wrote the topic.
        topic: For example ``features.ticks``.
        recompute: Whether to compute the rows again from the ticks.
    """
    report = FeatureReport(topic)
    tasks = FeatureTasks(settings) if recompute else None
    if tasks is not None and settings.features.output_format != "arrow":
        report.notes.append("rows are JSON: they were counted, not computed again")
        tasks = None
    with (
        TopicReader(settings, topic, "verify") as rows,
        TopicReader(settings, settings.features.source_topic, "verify-source") as ticks,
    ):
        for partition in range(rows.partitions):
            # Where older blocks were deleted, the first one may begin inside a tick message.
            whole = rows.span(partition)[0] == 0
            part = _Partition(report, tasks, ticks, settings.features_group, partition, whole)
            part.check(rows.read(partition))
    return report


class _Partition:
    """The check of one partition."""

    def __init__(
        self,
        report: FeatureReport,
        tasks: FeatureTasks | None,
        ticks: TopicReader,
        group: str,
        partition: int,
        whole: bool,
    ) -> None:
        self._group = group
        self._report = report
        self._tasks = tasks
        self._ticks = ticks
        self._partition = partition
        self._where = f"{report.topic} {partition}"
        self._origin = ""
        self._again: _Recomputed | None = None
        self._whole = whole

    def check(self, messages: Iterator[Message]) -> None:
        """Reads all blocks of the partition."""
        report = self._report
        next_row: int | None = None
        last_source = -1
        for message in messages:
            first, rows = _number(message, names.FIRST_ROW), _number(message, names.ROWS)
            if first is None or rows is None:
                report.notes.append(f"{self._where}:{message.offset()} is not a feature block")
                continue
            report.rows += rows
            place = f"{self._where}:{message.offset()}"
            if next_row is not None and first > next_row:
                report.gaps += 1
                report.problem(f"{place} begins with row {first}, expected {next_row}")
            elif next_row is not None and first < next_row:
                report.doubles += min(next_row - first, rows)
                report.problem(f"{place} repeats rows from {first} on, expected {next_row}")
            source = _number(message, names.SOURCE_FIRST_OFFSET)
            if source is not None and source < last_source:
                report.disordered += 1
                report.problem(f"{place} is of source offset {source}, after {last_source}")
            self._whole = self._whole or (source is not None and source > last_source >= 0)
            last_source = _number(message, names.SOURCE_LAST_OFFSET) or last_source
            if self._whole:
                self._compare(message, first, place)
            next_row = max(next_row or 0, first + rows)

    def _compare(self, message: Message, first: int, place: str) -> None:
        if self._tasks is None:
            return
        origin = header(message.headers(), names.ORIGIN) or ""
        if origin != self._origin:
            self._origin = origin
            self._again = self._start(message, origin, first)
        if self._again is None:
            return
        batch = pa.ipc.open_stream(message.value()).read_next_batch()
        differing, compared = self._again.differing(batch, first)
        self._report.recomputed += compared
        self._report.differing += len(differing)
        if differing:
            self._report.problem(f"{place} differs from its ticks, first in row {differing[0]}")

    def _start(self, message: Message, origin: str, first: int) -> "_Recomputed | None":
        tasks, report = self._tasks, self._report
        assert tasks is not None
        set_hash = header(message.headers(), names.SET_HASH)
        offset = origin.rpartition(":")[2]
        low, _ = self._ticks.span(self._partition)
        if set_hash != tasks.feature_set.hash:
            report.notes.append(
                f"{self._where}: rows from {first} on are of feature set {set_hash}, the settings "
                f"say {tasks.feature_set.hash}; not computed again"
            )
        elif not offset.isdigit() or int(offset) < low:
            report.notes.append(
                f"{self._where}: the ticks of origin {origin or 'unknown'} were deleted; not "
                "computed again"
            )
        else:
            task = tasks(self._partition, self._ticks.partitions)
            source = self._ticks.fork().read(self._partition, int(offset))
            wanted = _number(message, names.SOURCE_FIRST_OFFSET) or int(offset)
            return _Recomputed(task, source, self._group, first, wanted)
        return None


class _Recomputed:
    """Rows computed again, from an origin on, in the order of the log."""

    def __init__(
        self,
        task: FeatureTask,
        source: Iterator[Message],
        group: str,
        first_row: int,
        first_offset: int,
    ) -> None:
        self._group = group
        self._blocks: deque[tuple[int, pa.RecordBatch]] = deque()
        self._produced = self._produce(task, source, first_row, first_offset)

    def _produce(
        self, task: FeatureTask, source: Iterator[Message], first_row: int, first_offset: int
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields (identity of the first row, rows).

        The first block seen need not be the first of its origin: what comes before its source
        offset only brings the state there.
        """
        row = None
        for read in _batches(source, first_offset):
            batch = read.for_group(self._group)
            if not len(batch):
                continue
            if batch.first_offset < first_offset:
                task.replay(batch, 0)
                continue
            row = first_row if row is None else row
            produced = task.process(batch, row)
            task.commit()
            for block in produced.blocks:
                rows = pa.ipc.open_stream(block.value).read_next_batch()
                yield row, rows
                row += len(rows)

    def differing(self, batch: pa.RecordBatch, first: int) -> tuple[list[int], int]:
        """Returns identities of rows that are not equal, and how many were compared.

        Rows that the ticks do not give are counted as differing.
        """
        end = first + len(batch)
        while not self._blocks or self._blocks[-1][0] + len(self._blocks[-1][1]) < end:
            following = next(self._produced, None)
            if following is None:
                break
            self._blocks.append(following)
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= first:
            self._blocks.popleft()
        differing: list[int] = []
        reached = first
        for start, rows in self._blocks:
            low, high = max(start, reached), min(start + len(rows), end)
            if low < high and low == reached:
                ours = rows.slice(low - start, high - low)
                theirs = batch.slice(low - first, high - low)
                differing += (low + np.flatnonzero(unequal_rows(ours, theirs))).tolist()
                reached = high
        differing += range(reached, end)
        return differing, len(batch)


def unequal_rows(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> NDArray[np.bool_]:
    """Which rows differ in any bit of any column, bool [n]."""
    unequal = np.zeros(len(ours), np.bool_)
    if ours.schema.names != theirs.schema.names:
        return ~unequal
    for name in ours.schema.names:
        left, right = _bits(ours.column(name)), _bits(theirs.column(name))
        unequal |= np.logical_or(left[0] != right[0], left[1] != right[1])
    return unequal


def _bits(column: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    missing = np.asarray(column.is_null())
    kind = column.type
    if pa.types.is_dictionary(kind):
        return np.asarray(column.cast(pa.utf8()).to_pylist(), object), missing
    if pa.types.is_floating(kind):
        values = np.ascontiguousarray(column.fill_null(0.0).to_numpy(zero_copy_only=False))
        return values.view(np.int64 if kind == pa.float64() else np.int32), missing
    if pa.types.is_string(kind):
        return np.asarray(column.to_pylist(), object), missing
    return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), missing


def _batches(messages: Iterator[Message], cut: int | None = None) -> Iterator[PartitionBatch]:
    """Groups messages; a batch never reaches across the offset `cut`."""
    waiting: list[Message] = []
    for message in messages:
        if waiting and (len(waiting) >= _MESSAGES or message.offset() == cut):
            yield from by_partition(waiting)
            waiting = []
        waiting.append(message)
    yield from by_partition(waiting)


def _number(message: Message, name: str) -> int | None:
    text = header(message.headers(), name)
    return int(text) if text is not None and text.isdigit() else None
