"""Where a subscriber stands: a resume token by row identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.errors import InvalidInputError

_VERSION = "v1"
# Occurs neither in names of sets nor in topic ids, which are base64.
_SEPARATOR = ":"


@dataclass(frozen=True, slots=True)
class Position:
    """A resume token. ``str(position)`` gives the text form, `Position.parse` reads it back.

    Attributes:
        set: Name of the feature set; empty is the bridge's own.
        rows: The last row read, by partition.
        offsets: An offset from which on all rows that are still to be read are found, by partition.
            Needed for partitions of which no row was read yet; for others it saves the search.
        topic_id: Identity of the topic the rows belong to; empty where the broker gives none.
        since_ns: Rows with an older event time (UTC, ns) are left out; None for no such bound.
    """

    set: str
    rows: Mapping[int, int]
    offsets: Mapping[int, int] = field(default_factory=dict)
    topic_id: str = ""
    since_ns: int | None = None

    def __str__(self) -> str:
        since = "" if self.since_ns is None else str(self.since_ns)
        places = ",".join(
            f"{p}={self.rows.get(p, '')}" + (f"@{self.offsets[p]}" if p in self.offsets else "")
            for p in sorted({*self.rows, *self.offsets})
        )
        return _SEPARATOR.join((_VERSION, self.set, self.topic_id, since, places))

    @classmethod
    def parse(cls, token: str) -> Position:
        """Read the text form.

        Raises:
            InvalidInputError: The text is no resume token.
        """
        try:
            version, feature_set, topic_id, since, places = token.split(_SEPARATOR)
            if version != _VERSION:
                raise ValueError
            rows: dict[int, int] = {}
            offsets: dict[int, int] = {}
            for place in filter(None, places.split(",")):
                name, _, value = place.partition("=")
                row, at, offset = value.partition("@")
                partition = _natural(name)
                if row or not at:
                    rows[partition] = _natural(row)
                if at:
                    offsets[partition] = _natural(offset)
            since_ns = int(since) if since else None
        except ValueError:
            raise InvalidInputError(
                "expected 'latest', 'earliest' or a resume token as `position` of a subscription "
                f"gives it, was {token!r:.120} (start); correct it"
            ) from None
        return cls(feature_set, rows, offsets, topic_id, since_ns)


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)
