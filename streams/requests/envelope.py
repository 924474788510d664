"""What stands around a request or a reply: the headers of its record."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from schemas import headers as names


class MalformedEnvelopeError(ValueError):
    """A record lacks what is needed to answer it."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """How to answer a request.

    Attributes:
        request_id: Comes back with the reply.
        requester: Who asked; others on the same partition pass the reply over.
        group: Who is to answer; None is everybody who reads the topic.
        reply_topic: Where the reply goes.
        reply_partition: To which partition of it.
        deadline_ms: When the requester stops waiting, milliseconds since 1970 (UTC).
    """

    request_id: bytes
    requester: bytes
    group: str | None
    reply_topic: str
    reply_partition: int
    deadline_ms: int

    @classmethod
    def parse(cls, headers: Iterable[tuple[str, Any]] | None) -> "Envelope":
        """Returns the envelope of a record.

        Raises:
            MalformedEnvelopeError: A header is missing or malformed.
        """
        found = dict(headers or ())
        try:
            group = found.get(names.GROUP)
            return cls(
                found[names.REQUEST_ID],
                found[names.REQUESTER],
                None if group is None else group.decode(),
                found[names.REPLY_TOPIC].decode(),
                int(found[names.REPLY_PARTITION]),
                int(found[names.DEADLINE_MS]),
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise MalformedEnvelopeError(
                f"expected the headers of a request, was without a usable one ({error!r})"
            ) from error

    def as_headers(self) -> list[tuple[str, bytes]]:
        """Returns the headers of the request's record."""
        headers = [
            (names.REQUEST_ID, self.request_id),
            (names.REQUESTER, self.requester),
            (names.REPLY_TOPIC, self.reply_topic.encode()),
            (names.REPLY_PARTITION, b"%d" % self.reply_partition),
            (names.DEADLINE_MS, b"%d" % self.deadline_ms),
        ]
        if self.group is not None:
            headers.append((names.GROUP, self.group.encode()))
        return headers

    def reply_headers(self, failure: int | None) -> list[tuple[str, bytes]]:
        """Returns the headers of the reply's record.

        Args:
            failure: Code of the failure that the reply tells of; None for an answer.
        """
        headers = [(names.REQUEST_ID, self.request_id), (names.REQUESTER, self.requester)]
        if failure is not None:
            headers.append((names.FAILURE, b"%d" % failure))
        return headers
