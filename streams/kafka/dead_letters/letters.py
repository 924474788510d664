"""What was refused, by record and by group."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from confluent_kafka import Message

from schemas import headers as names
from schemas.dead_letters import parse_rows
from schemas.processing import MISPLACED
from schemas.settings import Settings
from schemas.topics import dead_letter_topic
from streams.kafka.batch import header
from streams.kafka.bounded_read import TopicReader

Place = tuple[int, int]


@dataclass(frozen=True)
class Refused:
    """What one group refused of a record.

    Attributes:
        rows: Positions of the refused ticks; None is the whole record.
        misplaced: Whether symbols among them belong on another partition.
        requeued: Whether they were sent again for this group.
    """

    rows: frozenset[int] | None
    misplaced: bool = False
    requeued: bool = False

    def joined(self, other: "Refused") -> "Refused":
        """Returns what was refused in two letters; that it was sent again stays so."""
        rows = None if self.rows is None or other.rows is None else self.rows | other.rows
        return Refused(rows, self.misplaced or other.misplaced, self.requeued or other.requeued)


@dataclass(frozen=True)
class Letter:
    """What was refused of one source record, by whichever groups.

    Attributes:
        partition: Where the refused record stands in the source topic.
        offset: Likewise.
        timestamp_ms: The record's timestamp, milliseconds since 1970 (UTC).
        reason: What was wrong, in words; of the newest refusal.
        refusals: By group.
        size: Bytes of the record's value.
        attempt: How often it had been sent again before this refusal.
        stored: Where the newest refusal stands in the dead-letter topic.
    """

    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    refusals: Mapping[str, Refused]
    size: int
    attempt: int
    stored: Place

    @property
    def place(self) -> Place:
        """Partition and offset of the refused record."""
        return self.partition, self.offset

    @property
    def groups(self) -> frozenset[str]:
        """Who refused it."""
        return frozenset(self.refusals)

    @property
    def waiting(self) -> frozenset[str]:
        """For whom it was not sent again yet."""
        return frozenset(group for group, one in self.refusals.items() if not one.requeued)

    @property
    def requeued(self) -> bool:
        """Whether it was sent again for all who refused it."""
        return not self.waiting

    @property
    def rows(self) -> frozenset[int] | None:
        """Positions of the ticks that any group refused; None is the whole record."""
        found: frozenset[int] = frozenset()
        for one in self.refusals.values():
            if one.rows is None:
                return None
            found |= one.rows
        return found


@dataclass(frozen=True)
class LetterFilter:
    """Which letters are meant; what is None does not restrict.

    Attributes:
        reason: Text that the reason contains, in any case.
        since_ms: Oldest timestamp, milliseconds since 1970 (UTC), included.
        until_ms: Newest timestamp, excluded.
        places: Certain letters.
        requeued: Whether letters that were sent again are meant as well.
    """

    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    places: frozenset[Place] | None = None
    requeued: bool = False

    def accepts(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            (self.reason is None or self.reason.lower() in letter.reason.lower())
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
            and (self.places is None or letter.place in self.places)
            and (self.requeued or not letter.requeued)
        )


def list_letters(settings: Settings, source: str, wanted: LetterFilter) -> list[Letter]:
    """Returns the letters of a source topic by partition and offset; values are not kept.

    Args:
        settings: Where Kafka is.
        source: Topic whose records were refused.
        wanted: Which ones.
    """
    found: dict[Place, Letter] = {}
    with TopicReader(settings, dead_letter_topic(source), "dead-letters") as reader:
        for partition in range(reader.partitions):
            for message in reader.read(partition):
                place = _place(message)
                if place is None:
                    continue
                before = found.get(place)
                if header(message.headers(), names.REQUEUED) is None:
                    found[place] = _fold(before, _letter(message, place))
                elif before is not None:
                    found[place] = _sent(before, message)
    return [found[place] for place in sorted(found) if wanted.accepts(found[place])]


def _place(message: Message) -> Place | None:
    partition = header(message.headers(), names.SOURCE_PARTITION)
    offset = header(message.headers(), names.SOURCE_OFFSET)
    if partition is None or offset is None or not (partition + offset).isdigit():
        return None
    return int(partition), int(offset)


def _letter(message: Message, place: Place) -> Letter:
    headers = message.headers()
    rows = header(headers, names.ROWS)
    size = header(headers, names.ORIGINAL_BYTES)
    attempt = header(headers, names.ATTEMPT) or "0"
    refused = Refused(
        None if rows is None else parse_rows(rows), header(headers, names.KIND) == MISPLACED
    )
    return Letter(
        *place,
        timestamp_ms=message.timestamp()[1],
        reason=header(headers, names.REASON) or "",
        refusals={header(headers, names.GROUP) or "": refused},
        size=int(size) if size is not None and size.isdigit() else len(message.value() or b""),
        attempt=int(attempt) if attempt.isdigit() else 0,
        stored=(message.partition(), message.offset()),
    )


def _fold(before: Letter | None, letter: Letter) -> Letter:
    if before is None:
        return letter
    refusals = dict(before.refusals)
    for group, refused in letter.refusals.items():
        known = refusals.get(group)
        refusals[group] = refused if known is None else known.joined(refused)
    return replace(letter, refusals=refusals)


def _sent(letter: Letter, mark: Message) -> Letter:
    """Returns a letter after it was sent again for the groups of a mark."""
    text = header(mark.headers(), names.FOR_GROUPS)
    groups = letter.groups if text is None else names.split_groups(text)
    refusals = {
        group: replace(refused, requeued=refused.requeued or group in groups)
        for group, refused in letter.refusals.items()
    }
    return replace(letter, refusals=refusals)
