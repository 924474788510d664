"""Sending refused records again: each for those who refused it, once, in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, Message, Producer

from schemas import headers as names
from schemas.errors import InvalidInputError
from schemas.partitioner import partition_for
from schemas.settings import Settings
from schemas.topics import dead_letter_topic
from streams.kafka.admin import admin_client, partition_count
from streams.kafka.batch import header
from streams.kafka.clients import producer
from streams.kafka.dead_letters.letters import Letter, Refused
from streams.kafka.dead_letters.values import LetterReader, portions
from streams.kafka.errors import KafkaUnavailableError, kafka_error

_TRANSACTION_TIMEOUT_S = 30.0
_OWN_HEADERS = frozenset(
    {
        names.REASON,
        names.KIND,
        names.SOURCE_TOPIC,
        names.SOURCE_PARTITION,
        names.SOURCE_OFFSET,
        names.GROUP,
        names.ROWS,
        names.ORIGINAL_BYTES,
        names.SHA256,
        names.ATTEMPT,
        names.FOR_GROUPS,
    }
)

SelectRows = Callable[[bytes, str | None, frozenset[int]], bytes]


@dataclass
class RequeueResult:
    """What `requeue` did.

    Attributes:
        sent: Letters whose record, or refused rows, were sent again.
        skipped: Letters that could not be sent, and why.
    """

    sent: list[Letter] = field(default_factory=list)
    skipped: list[tuple[Letter, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Record:
    """What is sent: to which partition, what, and for whom."""

    partition: int
    value: bytes
    groups: frozenset[str]


def requeue(
    settings: Settings, source: str, letters: Sequence[Letter], select_rows: SelectRows
) -> RequeueResult:
    """Sends refused records to their source topic again, in the order in which they stood there.

    They go to the partition that they came from, so the order of a key holds among them; ticks
    that were refused for being on the wrong one go to their own. Of a record that was refused in
    part only those ticks are sent. A header names the groups that refused them: other ones, which
    have taken them already, pass them over. A letter that was sent for all is sent for all again.

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
    if not letters:
        return result
    partitions = partition_count(admin_client(settings), source)
    client = producer(settings, transactional_id=f"{settings.environment}.dead-letters.{source}")
    try:
        client.init_transactions(_TRANSACTION_TIMEOUT_S)
        with LetterReader(settings, source) as reader:
            for part in portions(letters):
                # Everything is at hand before the transaction begins, which the broker ends soon.
                ready = list(_prepared(reader, part, select_rows, partitions, result))
                if not ready:
                    continue
                client.begin_transaction()
                for letter, message, records in ready:
                    _send(client, source, letter, message, records)
                client.commit_transaction(_TRANSACTION_TIMEOUT_S)
                result.sent += [letter for letter, _, _ in ready]
    except KafkaException as error:
        raise KafkaUnavailableError(
            f"expected to send dead letters of {source} again, was refused "
            f"({kafka_error(error).str()}) after {len(result.sent)}; run it again"
        ) from error
    return result


def _prepared(
    reader: LetterReader,
    letters: Sequence[Letter],
    select_rows: SelectRows,
    partitions: int,
    result: RequeueResult,
) -> Iterator[tuple[Letter, Message, list[_Record]]]:
    found = reader.messages(letters)
    there = {letter.place for letter, _ in found}
    for letter in letters:
        if letter.place not in there:
            result.skipped.append((letter, "expected the dead letter, was deleted meanwhile"))
    for letter, message in found:
        try:
            value = reader.whole_value(letter, message)
            content_type = header(message.headers(), names.CONTENT_TYPE)
            records = list(_records(letter, value, content_type, select_rows, partitions))
        except InvalidInputError as error:
            result.skipped.append((letter, str(error)))
        else:
            yield letter, message, records


def _records(
    letter: Letter,
    value: bytes,
    content_type: str | None,
    select_rows: SelectRows,
    partitions: int,
) -> Iterator[_Record]:
    """Yields one record for all groups that refused the same, for each partition it belongs to."""
    together: dict[Refused, set[str]] = {}
    for group in sorted(letter.waiting or letter.groups):
        together.setdefault(letter.refusals[group], set()).add(group)
    for refused, groups in together.items():
        if refused.rows is None:
            yield _Record(letter.partition, value, frozenset(groups))
            continue
        homes = {letter.partition: refused.rows}
        if refused.misplaced:
            homes = _homes(letter.partition, value, content_type, refused.rows, partitions)
        for partition, rows in homes.items():
            yield _Record(partition, select_rows(value, content_type, rows), frozenset(groups))


def _homes(
    partition: int, value: bytes, content_type: str | None, rows: frozenset[int], partitions: int
) -> dict[int, frozenset[int]]:
    """Returns ticks by the partition where their symbol belongs; what has none stays."""
    from schemas.ticks.select_rows import symbols_of

    ordered = sorted(rows)
    found: dict[int, set[int]] = {}
    for row, symbol in zip(ordered, symbols_of(value, content_type, ordered), strict=True):
        home = partition_for(symbol, partitions) if symbol else partition
        found.setdefault(home, set()).add(row)
    return {home: frozenset(found[home]) for home in sorted(found)}


def _send(
    client: Producer, source: str, letter: Letter, message: Message, records: Sequence[_Record]
) -> None:
    kept = [(n, v) for n, v in message.headers() or () if n not in _OWN_HEADERS]
    attempt = b"%d" % (letter.attempt + 1)
    for record in records:
        client.produce(
            source,
            record.value,
            message.key(),
            record.partition,
            headers=[*kept, (names.ATTEMPT, attempt), *_for(record.groups)],
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
            *_for(frozenset().union(*(record.groups for record in records))),
        ],
        timestamp=letter.timestamp_ms,
    )


def _for(groups: frozenset[str]) -> list[tuple[str, bytes]]:
    """Returns the header that names groups; none where one of them is unknown."""
    return [] if "" in groups else [(names.FOR_GROUPS, names.join_groups(groups))]
