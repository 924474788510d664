"""Times as users write them."""

from datetime import UTC, date, datetime, timedelta, tzinfo

from schemas.errors import InvalidInputError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A number of more digits is no date as 20260131: nanoseconds.
_DIGITS_OF_A_DATE = 8


def nanoseconds(time: int | str | date | datetime, name: str, *, zone: tzinfo | None = None) -> int:
    """Returns a time as nanoseconds since 1970-01-01 UTC.

    Args:
        time: ISO 8601 text, a `datetime` with a zone, a date (UTC), or nanoseconds, also as text.
        name: Of the argument or option, for errors.
        zone: Of texts without one; None refuses them.

    Raises:
        InvalidInputError: It is no time, or has no zone.
    """
    if isinstance(time, int):
        return time
    moment: object = time
    if isinstance(time, str):
        if len(time) > _DIGITS_OF_A_DATE and time.isascii() and time.isdigit():
            return int(time)
        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            moment = None
        else:
            moment = moment.replace(tzinfo=moment.tzinfo or zone)
    elif isinstance(time, date) and not isinstance(time, datetime):
        moment = datetime(time.year, time.month, time.day, tzinfo=UTC)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        needed = "a time with a zone such as 2026-01-31T14:30Z"
        if zone is not None:
            needed = "a date, a time such as 2026-01-31T14:30, a datetime with a zone"
        raise InvalidInputError(
            f"expected {needed}, or nanoseconds since 1970, was {time!r:.120} ({name}); correct it"
        )
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
