"""Lengths of bars."""

import re
from dataclasses import dataclass

from schemas.errors import InvalidInputError

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DAY_S = 86_400
_TEXT = re.compile(r"([1-9][0-9]{0,4})([smhd])")


@dataclass(frozen=True)
class Interval:
    """How long a bar is.

    Attributes:
        name: Shortest way to write it, for example ``1m``; part of topic names.
        ns: Nanoseconds; of ``1d`` those of 24 hours, which a session need not have.
        is_session: Whether a bar covers one trading session (``1d``) instead of a fixed time.
    """

    name: str
    ns: int
    is_session: bool = False

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Reads ``1s``, ``5m``, ``1h``, ``1d`` and so on; ``60m`` is ``1h``.

        Raises:
            InvalidInputError: The text is not an interval, or a day is not a multiple of it.
        """
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None:
            raise InvalidInputError(
                f"expected an interval such as 1s, 1m, 5m, 15m, 1h or 1d, was {text[:40]!r} "
                "(interval); correct it"
            )
        count, unit = int(match[1]), match[2]
        if unit == "d":
            if count != 1:
                raise InvalidInputError(
                    f"expected 1d as the longest interval, was {text!r} (interval); make longer "
                    "bars from daily ones"
                )
            return cls("1d", _DAY_S * 10**9, is_session=True)
        return cls.of_seconds(count * _SECONDS[unit])

    @classmethod
    def of_seconds(cls, seconds: int) -> "Interval":
        """Returns the interval of a fixed length.

        Args:
            seconds: At most half a day, which must be a multiple of it.

        Raises:
            InvalidInputError: It is not.
        """
        if seconds < 1 or _DAY_S % seconds or seconds * 2 > _DAY_S:
            raise InvalidInputError(
                f"expected an interval that divides a day, at most 12h, or 1d, was {seconds} s "
                "(interval); choose 1s, 1m, 5m, 15m, 1h or 1d"
            )
        unit = next(u for u in "hms" if seconds % _SECONDS[u] == 0)
        return cls(f"{seconds // _SECONDS[unit]}{unit}", seconds * 10**9)
