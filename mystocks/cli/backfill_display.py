"""What `mystocks ticks backfill` shows: a bar while it loads, and what it has done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def progress(name: str, *, visible: bool) -> Iterator[Callable[[float, int], None]]:
    """Gives a function that is told the part done (0 to 1) and the rows sent so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(name, total=1.0, rows=0)
        yield lambda part, rows: bar.update(task, completed=part, rows=rows)


def describe(summary: dict[str, Any]) -> str:
    """Returns the summary in sentences."""
    lines = [
        f"{summary['rows']:,} {summary['kind']} of {summary['symbols']:,} symbols to "
        f"{summary['topic']} in {summary['seconds']:.2f} s "
        f"({summary['rows_per_second']:,.0f} rows/s), all acknowledged"
    ]
    if summary["kind"] == "bars":
        told = "as the file has them" if summary["interval_from"] == "file" else "as you said"
        lines.append(
            f"interval {summary['interval']} ({told}); times are the {summary['label']} of a bar, "
            f"in {summary['timezone']} where they have no zone; "
            f"{_units(summary['units'])}"
        )
        if summary["first_end_time_ns"] is not None:
            first, last = (
                datetime.fromtimestamp(summary[key] // 10**9, UTC).isoformat()
                for key in ("first_end_time_ns", "last_end_time_ns")
            )
            lines.append(f"ends of bars from {first} to {last}")
    lines += [f"{count:,} rows taken where {what}" for what, count in summary["doubtful"].items()]
    if summary["rejected"]:
        lines.append(f"{summary['rejected']:,} rows left out:")
        lines += [f"  {count:,} x {reason}" for reason, count in summary["reasons"].items()]
        lines += [f"  {text}" for text in summary["first_rejected"]]
    return "\n".join(lines)


def _units(units: str) -> str:
    if units == "tushare":
        return "Tushare's units: lots of 100 shares, thousands of yuan"
    return "volume and amount as in the file"
