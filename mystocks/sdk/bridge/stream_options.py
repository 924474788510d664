"""How a stream of ticks behaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mystocks.sdk.bridge.subscription import Policy, selection
from mystocks.sdk.bridge.symbols import feature_list, symbol_list
from mystocks.sdk.tick import Tick, check_tick, plain_tick
from mystocks.v1.realtime_pb2 import FeatureSelection
from schemas.errors import InvalidInputError

_MAX_LINGER_MS = 1000


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Checked options of a stream.

    Attributes:
        set: Name of the feature set; empty is the bridge's own.
        select: What to receive; None for the rows of the symbols that are sent.
        features: Features to keep of those rows; None for all.
        rows: Whether rows are wanted at all.
        check: Whether ticks are checked before they are sent.
        linger_ms: How long a tick waits for others.
        timeout_s: The iteration ends when no row came for this long; None waits for ever.
    """

    set: str
    select: FeatureSelection | None
    features: list[str] | None
    rows: bool
    check: bool
    linger_ms: float
    timeout_s: float | None

    def checked(self, tick: Tick, place: int) -> Tick:
        """Returns a tick as it can be sent.

        Args:
            tick: The tick.
            place: Its number, for an error.

        Raises:
            InvalidInputError: A field is not acceptable.
        """
        return (check_tick if self.check else plain_tick)(tick, f"tick {place}")


def stream_options(
    symbols: str | Iterable[str] | None,
    features: str | Iterable[str] | None,
    set: str,  # noqa: A002 - the field's own word
    policy: Policy,
    *,
    rows: bool,
    check: bool,
    linger_ms: float,
    timeout_s: float | None,
) -> StreamOptions:
    """Checks options.

    Raises:
        InvalidInputError: One of them is not acceptable.
    """
    chosen = selection(set, symbol_list(symbols), feature_list(features), policy)
    if symbols is None and set:
        raise InvalidInputError(
            f"expected symbols to receive of the set {set!r}, was none (symbols); without them the "
            "rows of the symbols sent come back, and those are of the bridge's own set (leave set "
            "out)"
        )
    if not 0 <= linger_ms <= _MAX_LINGER_MS:
        raise InvalidInputError(
            f"expected 0 to {_MAX_LINGER_MS}, was {linger_ms} (linger_ms); correct it"
        )
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidInputError(f"expected more than 0, was {timeout_s} (timeout_s); correct it")
    return StreamOptions(
        set=set,
        select=None if symbols is None else chosen,
        features=list(chosen.names) if symbols is None and features is not None else None,
        rows=rows,
        check=check,
        linger_ms=linger_ms,
        timeout_s=timeout_s,
    )
