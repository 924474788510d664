"""A frame as a table that people read."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mystocks.sdk.frame import FeatureFrame
    from mystocks.sdk.rows import FeatureRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Rows shown of the beginning and of the end.
_ENDS = 5


def frame_text(frame: FeatureFrame, columns: Sequence[str]) -> str:
    """Returns the first and last rows and as many columns as the terminal is wide."""
    count = len(frame)
    title = f"{count} row{'' if count == 1 else 's'} of {len(frame.names)} features"
    if frame.unknown_symbols:
        title += f", without any: {', '.join(frame.unknown_symbols[:5])}"
        title += "…" if len(frame.unknown_symbols) > 5 else ""
    if not count:
        return title
    parts = [frame] if count <= 2 * _ENDS else [frame.part(0, _ENDS), frame.part(count - _ENDS)]
    lines = [list(columns)]
    for part in parts:
        if len(lines) > 1:
            lines.append(["…"] * len(columns))
        lines += [_cells(row) for row in part]
    return "\n".join([*_aligned(lines, shutil.get_terminal_size().columns), title])


def _cells(row: FeatureRow) -> list[str]:
    time = (
        (_EPOCH + timedelta(microseconds=row.event_time_ns // 1000)).isoformat(" ")[:-6]
        if row.event_time_ns
        else ""
    )
    return [row.symbol, time, _number(row.price), *(_number(v) for v in row.values.values())]


def _number(value: float | None) -> str:
    if value is None:
        return "null"
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.2f}"


def _aligned(lines: list[list[str]], width: int) -> list[str]:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    shown, used = 0, 0
    for column in widths:
        used += column + 2
        # The columns that say which row it is are shown in any case.
        if used > width and shown >= 3:
            break
        shown += 1
    cut = "" if shown == len(widths) else "  …"
    return [
        line[0].ljust(widths[0])
        + "".join("  " + line[k].rjust(widths[k]) for k in range(1, shown))
        + cut
        for line in lines
    ]
