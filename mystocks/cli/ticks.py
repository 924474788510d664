"""`mystocks ticks`: sends ticks from a file."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Send ticks.")


class Encoding(StrEnum):
    """How records are encoded."""

    BATCH = "batch"
    JSON = "json"
    ARROW = "arrow"


@app.callback()
def ticks() -> None:
    """Send ticks."""


@app.command()
def produce(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="FILE.csv, FILE.parquet, or - for CSV on stdin.")
    ],
    *,
    encoding: Annotated[
        Encoding, typer.Option("--format", help="Encoding of the records.")
    ] = Encoding.BATCH,
    topic: Annotated[
        str | None, typer.Option(help="Topic; by default the source of the feature set.")
    ] = None,
    batch_ticks: Annotated[
        int, typer.Option(min=1, max=10_000, help="Most ticks in one record.")
    ] = 500,
    rate: Annotated[float | None, typer.Option(help="At most this many ticks a second.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Pace by event time: 1 as it happened, 60 a minute a second."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary.")] = False,
) -> None:
    """Send the ticks of a CSV or Parquet file.

    Columns: symbol, event_time_ns (UTC), price; optional size, bid, ask, sequence, volume, amount.
    """
    from mystocks.cli.endpoints import resolve_settings
    from mystocks.cli.tick_file import open_ticks
    from mystocks.cli.tick_sending import Pace, send_file
    from mystocks.sdk.producer import TickProducer

    pace = Pace.parse(rate, speed)
    with open_ticks(file) as source:
        settings = resolve_settings(needs_redis=False)
        with TickProducer(
            settings=settings,
            topic=topic or settings.features.source_topic,
            format=encoding.value,
            batch_ticks=batch_ticks,
        ) as producer:
            summary = send_file(source, producer, pace, show=sys.stderr.isatty())
    name = "standard input" if file == "-" else Path(file).name
    if as_json:
        typer.echo(json.dumps(summary))
    else:
        typer.echo(
            f"{summary['ticks']:,} ticks of {summary['symbols']:,} symbols from {name} to "
            f"{summary['topic']} in {summary['seconds']:.2f} s "
            f"({summary['ticks_per_second']:,.0f} ticks/s), all acknowledged"
        )
