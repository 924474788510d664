"""Dead letters as a list to work through: folded, filtered, sent again.

A dead letter stays in its topic. That it was sent again is a record of its own beside it, written
in one transaction with what was sent, so that nothing is sent twice by accident.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from confluent_kafka import KafkaException, Message, Producer

from schemas import headers as names
from schemas.dead_letters import parse_rows
from schemas.errors import InvalidInputError
from schemas.settings import Settings
from schemas.topics import dead_letter_topic
from streams.kafka.batch import header
from streams.kafka.bounded_read import TopicReader
from streams.kafka.clients import producer
from streams.kafka.errors import KafkaUnavailableError, kafka_error

# Letters in one transaction.
_PER_TRANSACTION = 200
_TRANSACTION_TIMEOUT_S = 30.0
_OWN_HEADERS = frozenset(
    {
        names.REASON,
        names.SOURCE_TOPIC,
        names.SOURCE_PARTITION,
        names.SOURCE_OFFSET,
        names.GROUP,
        names.ROWS,
        names.ORIGINAL_BYTES,
        names.SHA256,
        names.ATTEMPT,
    }
)

Place = tuple[int, int]


@dataclass(frozen=True)
class Letter:
    """What was refused of one source record, by whichever groups.

    Attributes:
        partition: Where the refused record stands in the source topic.
        offset: Likewise.
        timestamp_ms: The record's timestamp, milliseconds since 1970 (UTC).
        reason: What was wrong, in words; of the newest refusal.
        groups: Who refused it.
        rows: Positions of the refused ticks; None is the whole record.
        size: Bytes of the record's value.
        attempt: How often it had been sent again before this refusal.
        requeued: Whether it was sent again since.
    """

    partition: int
    offset: int
    timestamp_ms: int
    reason: str
    groups: frozenset[str]
    rows: frozenset[int] | None
    size: int
    attempt: int
    requeued: bool = False

    @property
    def place(self) -> Place:
        """Partition and offset of the refused record."""
        return self.partition, self.offset


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
    for message in _messages(settings, source):
        place = _place(message)
        if place is None:
            continue
        before = found.get(place)
        if header(message.headers(), names.REQUEUED) is not None:
            if before is not None:
                found[place] = replace(before, requeued=True)
        else:
            found[place] = _fold(before, _letter(message, place))
    return [found[place] for place in sorted(found) if wanted.accepts(found[place])]


def letter_values(
    settings: Settings, source: str, letters: Iterable[Letter]
) -> Iterator[tuple[Letter, Message, bytes]]:
    """Yields letters in order with their message and the record's whole value.

    Raises:
        InvalidInputError: The value was cut, and the source record is not in the log any more.
    """
    waiting = {letter.place: letter for letter in letters}
    for message in _messages(settings, source):
        place = _place(message)
        if place is None or header(message.headers(), names.REQUEUED) is not None:
            continue
        letter = waiting.pop(place, None)
        if letter is not None:
            yield letter, message, _whole_value(settings, source, message, letter)


@dataclass
class RequeueResult:
    """What `requeue` did.

    Attributes:
        sent: Letters whose record, or refused rows, were sent again.
        skipped: Letters that could not be sent, and why.
    """

    sent: list[Letter] = field(default_factory=list)
    skipped: list[tuple[Letter, str]] = field(default_factory=list)


def requeue(
    settings: Settings,
    source: str,
    letters: Sequence[Letter],
    select_rows: Callable[[bytes, str | None, frozenset[int]], bytes],
) -> RequeueResult:
    """Sends refused records to their source topic again, in the order in which they stood there.

    They go to the partition that they came from, so the order of a key holds among them. Of a
    record that was refused in part only those ticks are sent.

    Args:
        settings: Where Kafka is.
        source: Topic whose records were refused.
        letters: Which ones.
        select_rows: Makes a value of some rows of a value, given its content type.

    Raises:
        KafkaUnavailableError: The broker did not take a transaction; letters of earlier ones are
            marked as sent.
    """
    result = RequeueResult()
    client = producer(settings, transactional_id=f"{settings.environment}.dead-letters.{source}")
    try:
        client.init_transactions(_TRANSACTION_TIMEOUT_S)
        batch: list[Letter] = []
        for letter, message, value in _sendable(settings, source, letters, result):
            if not batch:
                client.begin_transaction()
            try:
                content = _content(message, value, letter, select_rows)
            except InvalidInputError as error:
                result.skipped.append((letter, str(error)))
                content = None
            if content is not None:
                _send(client, source, letter, message, content)
            batch.append(letter)
            if len(batch) >= _PER_TRANSACTION:
                _commit(client, batch, result)
        if batch:
            _commit(client, batch, result)
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected to send dead letters of {source} again, was refused "
            f"({kafka_error(error).str()}) after {len(result.sent)}; run it again"
        ) from error
    return result


def _commit(client: Producer, batch: list[Letter], result: RequeueResult) -> None:
    client.commit_transaction(_TRANSACTION_TIMEOUT_S)
    failed = {letter.place for letter, _ in result.skipped}
    result.sent += [letter for letter in batch if letter.place not in failed]
    batch.clear()


def _sendable(
    settings: Settings, source: str, letters: Sequence[Letter], result: RequeueResult
) -> Iterator[tuple[Letter, Message, bytes]]:
    waiting = {letter.place: letter for letter in letters}
    while waiting:
        try:
            for letter, message, value in letter_values(settings, source, waiting.values()):
                del waiting[letter.place]
                yield letter, message, value
            return
        except _CutValueError as error:
            del waiting[error.letter.place]
            result.skipped.append((error.letter, str(error)))


def _content(
    message: Message,
    value: bytes,
    letter: Letter,
    select_rows: Callable[[bytes, str | None, frozenset[int]], bytes],
) -> bytes | None:
    if letter.rows is None:
        return value
    return select_rows(value, header(message.headers(), names.CONTENT_TYPE), letter.rows)


def _send(client: Producer, source: str, letter: Letter, message: Message, value: bytes) -> None:
    kept = [(n, v) for n, v in message.headers() or () if n not in _OWN_HEADERS]
    attempt = b"%d" % (letter.attempt + 1)
    client.produce(
        source,
        value,
        message.key(),
        letter.partition,
        headers=[*kept, (names.ATTEMPT, attempt)],
        timestamp=letter.timestamp_ms,
    )
    client.produce(
        dead_letter_topic(source),
        None,
        message.key(),
        message.partition(),
        headers=[
            (names.SOURCE_TOPIC, source.encode()),
            (names.SOURCE_PARTITION, b"%d" % letter.partition),
            (names.SOURCE_OFFSET, b"%d" % letter.offset),
            (names.REQUEUED, attempt),
        ],
        timestamp=letter.timestamp_ms,
    )


class _CutValueError(InvalidInputError):
    def __init__(self, letter: Letter, text: str) -> None:
        super().__init__(text)
        self.letter = letter


def _whole_value(settings: Settings, source: str, message: Message, letter: Letter) -> bytes:
    value: bytes = message.value() or b""
    if header(message.headers(), names.ORIGINAL_BYTES) is None:
        return value
    with TopicReader(settings, source, "dead-letters") as reader:
        found = list(reader.read(letter.partition, letter.offset, letter.offset + 1))
    if not found or found[0].offset() != letter.offset or found[0].value() is None:
        raise _CutValueError(
            letter,
            f"expected the whole record at {source} {letter.partition}:{letter.offset}, was "
            f"deleted; only its first {len(value)} bytes are left, export them",
        )
    return bytes(found[0].value())


def _messages(settings: Settings, source: str) -> Iterator[Message]:
    with TopicReader(settings, dead_letter_topic(source), "dead-letters") as reader:
        for partition in range(reader.partitions):
            yield from reader.read(partition)


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
    return Letter(
        *place,
        timestamp_ms=message.timestamp()[1],
        reason=header(headers, names.REASON) or "",
        groups=frozenset({header(headers, names.GROUP) or ""}),
        rows=None if rows is None else parse_rows(rows),
        size=int(size) if size is not None and size.isdigit() else len(message.value() or b""),
        attempt=int(attempt) if attempt.isdigit() else 0,
    )


def _fold(before: Letter | None, letter: Letter) -> Letter:
    if before is None:
        return letter
    whole = before.rows is None or letter.rows is None
    rows = None if whole else (before.rows or frozenset()) | (letter.rows or frozenset())
    groups = before.groups | letter.groups
    return replace(letter, groups=groups, rows=rows, requeued=before.requeued)
