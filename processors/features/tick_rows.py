"""Some of the rows of decoded ticks, and refusals of some of the rows of a message."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas.processing import Refusal

if TYPE_CHECKING:
    from schemas.ticks import TickColumns

Ticks = TypeVar("Ticks", bound="TickColumns")


def select_ticks(ticks: Ticks, rows: NDArray[np.bool_]) -> Ticks:
    """Returns the ticks of some rows, as copies.

    Args:
        ticks: Ticks.
        rows: Which, bool [n].
    """
    columns: dict[str, Any] = {f.name: getattr(ticks, f.name)[rows] for f in fields(ticks)}
    return type(ticks)(**columns)


def rows_by_message(ticks: "TickColumns", rows: NDArray[np.intp]) -> dict[int, tuple[int, ...]]:
    """Returns by message the positions in it of some ticks.

    Args:
        ticks: Ticks.
        rows: Which, ascending.
    """
    messages, positions = ticks.message[rows], ticks.row[rows]
    if not len(rows):
        return {}
    numbers, starts = np.unique(messages, return_index=True)
    parts = np.split(positions, starts[1:])
    return {
        message: tuple(part.tolist()) for message, part in zip(numbers.tolist(), parts, strict=True)
    }


def merge_refusals(
    refused: list[Refusal],
    by_message: Mapping[int, tuple[int, ...]],
    reasons: Mapping[int, str],
    kind: str,
) -> list[Refusal]:
    """Adds refused rows, all of a kind, to what is refused already, one `Refusal` a message."""
    merged = {refusal.message: refusal for refusal in refused}
    for message, rows in by_message.items():
        before = merged.get(message)
        if before is None or before.rows is None:
            merged[message] = Refusal(message, rows, reasons[message], kind)
        else:
            together = tuple(sorted({*before.rows, *rows}))
            reason = f"{before.reason}; {reasons[message]}"
            merged[message] = Refusal(message, together, reason, kind)
    return [merged[message] for message in sorted(merged)]
