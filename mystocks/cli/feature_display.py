"""Latest features as a table that people read: features down, symbols across."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table

# As many as fit into 80 characters.
_SYMBOLS_PER_TABLE = 5
_FIXED = ("symbol", "event_time_ns", "price", "partition", "row")


def time_text(event_time_ns: int) -> str:
    """Returns an event time as ``2013-03-01 21:00:00`` (UTC), with a fraction if it has one."""
    seconds, fraction = divmod(event_time_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{fraction:09d}".rstrip("0") if fraction else text


def number_text(value: float | None) -> str:
    """Returns a feature with six significant digits; a dash while it is warming up."""
    return "-" if value is None else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


def tables(
    rows: Mapping[str, Mapping[str, Any]],
    *,
    title: str | None = None,
    marks: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Table]:
    """Yields tables with one column a symbol.

    Args:
        rows: By symbol, the row as the Redis table holds it.
        title: Shown above the first table.
        marks: Last lines: by their name, by symbol.
    """
    symbols = list(rows)
    features: Sequence[str] = list(
        dict.fromkeys(name for row in rows.values() for name in row if name not in _FIXED)
    )
    for start in range(0, len(symbols), _SYMBOLS_PER_TABLE):
        shown = symbols[start : start + _SYMBOLS_PER_TABLE]
        table = Table(
            title=title if start == 0 else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("", no_wrap=True)
        for symbol in shown:
            table.add_column(symbol, justify="right", no_wrap=True)
        times = [time_text(rows[s]["event_time_ns"]) for s in shown]
        table.add_row("date (UTC)", *(time[:10] for time in times))
        table.add_row("time", *(time[11:23] for time in times))
        table.add_row("price", *(number_text(rows[s]["price"]) for s in shown), end_section=True)
        for name in features:
            table.add_row(name, *(number_text(rows[s].get(name)) for s in shown))
        if marks is not None:
            table.add_section()
            for name, line in marks.items():
                table.add_row(name, *(line.get(s, "") for s in shown))
        yield table
