"""What `mystocks verify` checks: a features topic against itself and against its ticks."""

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from confluent_kafka import Message

from mystocks.cli.recomputed import Recomputed, batches
from mystocks.feature_tasks import FeatureTasks, source_decoder
from schemas import headers as names
from schemas.settings import Settings
from schemas.ticks import SymbolTable
from schemas.topics import features_topic
from streams.kafka.batch import header
from streams.kafka.bounded_read import TopicReader
from streams.kafka.errors import DamagedLogError
from streams.kafka.group_marks import committed_marks

_MOST_PROBLEMS = 20
# Reasons name values; a log full of garbage would have as many as messages.
_MOST_REASONS = 1000
# Ticks among which a duplicate is found, 100 MB of them.
_MOST_IDENTITIES = 1_000_000
# Rows are committed a moment before readers see them.
_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.2


@dataclass
class FeatureReport:
    """What was found in a features topic.

    Attributes:
        topic: The topic.
        rows: Rows read.
        gaps: Places where row identities are missing, the end included: rows that the group's
            commits count and the log does not have.
        doubles: Rows whose identity was there before.
        disordered: Blocks whose ticks come before those of the block in front.
        recomputed: Rows that were computed again from the ticks.
        differing: Of these, rows that are not equal, bit for bit.
        damaged: Places where a checksum differs; what is behind them could not be read.
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
    damaged: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (self.gaps, self.doubles, self.disordered, self.differing, self.damaged)
        return not any(wrong)

    def as_json(self) -> dict[str, Any]:
        """This report as one JSON object."""
        return {"ok": self.ok, **asdict(self)}

    def problem(self, text: str) -> None:
        """Notes a problem in words; counts are kept by the caller."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(text)

    def note(self, text: str) -> None:
        """Notes what could not be checked."""
        if len(self.notes) < _MOST_PROBLEMS:
            self.notes.append(text)

    def damage(self, error: DamagedLogError) -> None:
        """Notes a place that cannot be read."""
        self.damaged += 1
        self.problem(str(error))


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
        duplicates: Ticks with symbol, sequence and event time of one of the last million before
            them; bars with symbol, end and revision.
        corrections: Bars that are a later version of an earlier one.
        split_symbols: Symbols that are on more than one partition.
        damaged: Places where a checksum differs, in sentences; what is behind them in their
            partition could not be read.
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
    damaged: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing makes features wrong: a symbol on two partitions, a damaged log."""
        return not (self.split_symbols or self.damaged)

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
    with TopicReader(settings, topic, "verify") as reader:
        for partition in range(reader.partitions):
            symbols = SymbolTable(settings.features.max_symbols)
            try:
                _count_ticks(report, reasons, reader.read(partition), symbols)
            except DamagedLogError as error:
                report.damaged.append(str(error))
            for symbol in symbols.names:
                if homes.setdefault(symbol, partition) != partition:
                    report.split_symbols.append(symbol)
    report.symbols = len(homes)
    report.reasons = dict(reasons.most_common(_MOST_PROBLEMS))
    return report


def _count_ticks(
    report: TickReport, reasons: Counter[str], messages: Iterator[Message], symbols: SymbolTable
) -> None:
    """Counts what is in the messages of one partition."""
    decoder = source_decoder(report.topic)
    newest: dict[int, int] = {}
    seen = Recent(_MOST_IDENTITIES)
    for batch in batches(messages):
        ticks, refused = decoder.decode(
            batch.values, batch.content_types, batch.timestamps_ms, symbols
        )
        report.messages += len(batch)
        report.ticks += len(ticks.code)
        for refusal in refused:
            number = 1 if refusal.rows is None else len(refusal.rows)
            report.refused += number
            known = refusal.reason in reasons or len(reasons) < _MOST_REASONS
            reasons[refusal.reason if known else "other reasons"] += number
        revision = getattr(ticks, "revision", None)
        numbers = ticks.sequence if revision is None else revision
        for code, time_ns, sequence in zip(
            ticks.code.tolist(), ticks.event_time.tolist(), numbers.tolist(), strict=True
        ):
            if sequence >= 0:
                report.duplicates += seen.had((code, sequence, time_ns))
            if revision is not None and sequence > 0:
                report.corrections += 1
                continue
            before = newest.get(code, time_ns)
            report.out_of_order += time_ns < before
            newest[code] = max(before, time_ns)


class Recent:
    """Knows the last things that it was asked for.

    Args:
        most: How many; bounds the memory.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._order: deque[int] = deque()
        self._known: set[int] = set()

    def __len__(self) -> int:
        return len(self._order)

    def had(self, identity: tuple[int, ...]) -> bool:
        """Whether it was asked for this already; from now on it was."""
        # Of a million 64-bit hashes two are equal by chance once in 40 million logs.
        short = hash(identity)
        if short in self._known:
            return True
        self._known.add(short)
        self._order.append(short)
        if len(self._order) > self._most:
            self._known.remove(self._order.popleft())
        return False


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
        report.note("rows are JSON: they were counted, not computed again")
        tasks = None
    with (
        TopicReader(settings, topic, "verify") as rows,
        TopicReader(settings, settings.features.source_topic, "verify-source") as ticks,
    ):
        # Asked before the log's end, which may grow meanwhile.
        ends = _committed_rows(settings, topic, rows.partitions)
        for partition in range(rows.partitions):
            # Where older blocks were deleted, the first one may begin inside a tick message.
            whole = rows.span(partition)[0] == 0
            checked = _Partition(report, tasks, ticks, settings.features_group, partition, whole)
            try:
                checked.check(_until(rows, partition, ends.get(partition, 0)))
                checked.check_end(ends.get(partition, 0))
            except DamagedLogError as error:
                report.damage(error)
    return report


def _committed_rows(settings: Settings, topic: str, partitions: int) -> dict[int, int]:
    """Returns how many rows of each partition the commits of the topic's group count."""
    if topic != features_topic(settings.features.name):
        return {}
    group, source = settings.features_group, settings.features.source_topic
    marks = committed_marks(settings, group, source, partitions)
    return {partition: mark.row for partition, mark in marks.items()}


def _until(rows: TopicReader, partition: int, end_row: int) -> Iterator[Message]:
    """Yields the blocks of a partition, and waits a moment for rows that were committed."""
    start, reached = rows.span(partition)[0], 0
    waited_s = 0.0
    while True:
        for message in rows.read(partition, start):
            start = message.offset() + 1
            first, count = _number(message, names.FIRST_ROW), _number(message, names.ROWS)
            reached = max(reached, (first or 0) + (count or 0))
            yield message
        if reached >= end_row or waited_s >= _PATIENCE_S:
            return
        time.sleep(_LOOK_AGAIN_S)
        waited_s += _LOOK_AGAIN_S


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
        self._again: Recomputed | None = None
        self._whole = whole
        self._next_row: int | None = None

    def check(self, messages: Iterator[Message]) -> None:
        """Reads all blocks of the partition."""
        report = self._report
        next_row = self._next_row
        last_source = -1
        for message in messages:
            first, rows = _number(message, names.FIRST_ROW), _number(message, names.ROWS)
            if first is None or rows is None:
                report.note(f"{self._where}:{message.offset()} is not a feature block")
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
            self._next_row = next_row = max(next_row or 0, first + rows)

    def check_end(self, end_row: int) -> None:
        """Compares the last row with what was committed.

        Args:
            end_row: Identity of the row after the last one, as the commits say.
        """
        if (self._next_row or 0) >= end_row:
            return
        if self._next_row is None and not self._whole:
            self._report.note(f"{self._where}: all rows were deleted")
        else:
            self._report.gaps += 1
            self._report.problem(
                f"{self._where} ends before row {self._next_row or 0}, expected the rows before "
                f"{end_row}, which the group has committed"
            )

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
        try:
            differing, compared = self._again.differing(batch, first)
        except DamagedLogError as error:
            self._report.damage(error)
            self._again = None
            return
        self._report.recomputed += compared
        self._report.differing += len(differing)
        if differing:
            self._report.problem(f"{place} differs from its ticks, first in row {differing[0]}")

    def _start(self, message: Message, origin: str, first: int) -> "Recomputed | None":
        tasks, report = self._tasks, self._report
        assert tasks is not None
        set_hash = header(message.headers(), names.SET_HASH)
        offset = origin.rpartition(":")[2]
        low, _ = self._ticks.span(self._partition)
        if set_hash != tasks.feature_set.hash:
            report.note(
                f"{self._where}: rows from {first} on are of feature set {set_hash}, the settings "
                f"say {tasks.feature_set.hash}; not computed again"
            )
        elif not offset.isdigit() or int(offset) < low:
            report.note(
                f"{self._where}: the ticks of origin {origin or 'unknown'} were deleted; not "
                "computed again"
            )
        else:
            task = tasks(self._partition, self._ticks.partitions)
            source = self._ticks.fork().read(self._partition, int(offset))
            wanted = _number(message, names.SOURCE_FIRST_OFFSET) or int(offset)
            return Recomputed(task, source, self._group, first, wanted)
        return None


def _number(message: Message, name: str) -> int | None:
    text = header(message.headers(), name)
    return int(text) if text is not None and text.isdigit() else None
