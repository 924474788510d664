"""The records behind dead letters, in the order in which they stood in the source topic."""

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import Message

from schemas import headers as names
from schemas.errors import InvalidInputError
from schemas.settings import Settings
from schemas.topics import dead_letter_topic
from streams.kafka.batch import header
from streams.kafka.bounded_read import TopicReader
from streams.kafka.dead_letters.letters import Letter

# Letters, and bytes of their values, that are held at once.
_LETTERS = 200
_BYTES = 16 * 1024**2
# Letters that stand closer together than this are read in one go, with what is between them.
_NEAR = 1000


def letter_values(
    settings: Settings, source: str, letters: Iterable[Letter]
) -> Iterator[tuple[Letter, Message, bytes]]:
    """Yields letters in the order of the source topic with a message and the whole value.

    Raises:
        InvalidInputError: The value was cut, and the source record is not in the log any more.
    """
    with LetterReader(settings, source) as reader:
        for part in portions(letters):
            for letter, message in reader.messages(part):
                yield letter, message, reader.whole_value(letter, message)


def portions(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Yields letters in the order of the source topic, so many at once as may be in memory."""
    part: list[Letter] = []
    size = 0
    for letter in sorted(letters, key=lambda letter: letter.place):
        if part and (len(part) >= _LETTERS or size + letter.size > _BYTES):
            yield part
            part, size = [], 0
        part.append(letter)
        size += letter.size
    if part:
        yield part


class LetterReader:
    """Reads letters where they are stored, wherever in the topic that is.

    Args:
        settings: Where Kafka is.
        source: Topic whose records were refused.
    """

    def __init__(self, settings: Settings, source: str) -> None:
        self._source = source
        self._letters = TopicReader(settings, dead_letter_topic(source), "dead-letters")
        self._records = TopicReader(settings, source, "dead-letters")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._letters.close()
        self._records.close()

    def messages(self, letters: Sequence[Letter]) -> list[tuple[Letter, Message]]:
        """Returns those of some letters that are in the log still, in the given order."""
        stored = {letter.stored for letter in letters}
        found: dict[tuple[int, int], Message] = {}
        for partition, first, end in _stretches(sorted(stored)):
            for message in self._letters.read(partition, first, end):
                if (partition, message.offset()) in stored:
                    found[partition, message.offset()] = message
        return [(letter, found[letter.stored]) for letter in letters if letter.stored in found]

    def whole_value(self, letter: Letter, message: Message) -> bytes:
        """Returns the record's value; where the letter has its beginning only, from its source.

        Raises:
            InvalidInputError: The source record is not in the log any more.
        """
        value: bytes = message.value() or b""
        if header(message.headers(), names.ORIGINAL_BYTES) is None:
            return value
        found = list(self._records.read(letter.partition, letter.offset, letter.offset + 1))
        if not found or found[0].offset() != letter.offset or found[0].value() is None:
            raise InvalidInputError(
                f"expected the whole record at {self._source} {letter.partition}:{letter.offset}, "
                f"was deleted; only its first {len(value)} bytes are left, export them",
            )
        return bytes(found[0].value())


def _stretches(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yields partition, first offset and end of what is read in one go."""
    first = 0
    for i, (partition, offset) in enumerate(places):
        following = places[i + 1] if i + 1 < len(places) else (-1, 0)
        if following[0] != partition or following[1] - offset > _NEAR:
            yield partition, places[first][1], offset + 1
            first = i + 1
