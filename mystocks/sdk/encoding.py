"""From columns of ticks to record values that the broker takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from mystocks.sdk.tick import Tick
from schemas.ticks.encode import encode_arrow, encode_batch, encode_json
from schemas.topics import MAX_MESSAGE_BYTES

Format = Literal["batch", "json", "arrow"]
Columns = Sequence[Sequence[Any] | None]
"""One sequence a field of `Tick`, in its order; None for a column that is absent everywhere."""

ENCODERS: dict[Format, Callable[..., bytes]] = {
    "arrow": encode_arrow,
    "batch": encode_batch,
    "json": encode_json,
}
# The broker's limit counts key, headers and framing too.
_MAX_VALUE_BYTES = MAX_MESSAGE_BYTES - 16 * 1024


def columns_of(ticks: Sequence[Tick]) -> Columns:
    """Returns the columns of ticks."""
    symbols, times, prices, sizes, *optional = zip(*ticks, strict=True)
    # A column without any value is not written; most feeds have none of the last five.
    empty = (None,) * len(ticks)
    return symbols, times, prices, sizes, *(c if c != empty else None for c in optional)


def records(columns: Columns, encoding: Format) -> Iterator[tuple[bytes, Columns]]:
    """Yields record values and the ticks in them: one, or more where one would be too large."""
    symbols, times, prices, sizes, bids, asks, sequences, volumes, amounts = columns
    value = ENCODERS[encoding](
        symbols,
        times,
        prices,
        sizes,
        bids=bids,
        asks=asks,
        sequences=sequences,
        volumes=volumes,
        amounts=amounts,
    )
    count = len(symbols or ())
    if len(value) <= _MAX_VALUE_BYTES or count < 2:
        yield value, columns
        return
    half = count // 2
    for part in (slice(0, half), slice(half, None)):
        yield from records([c if c is None else c[part] for c in columns], encoding)
