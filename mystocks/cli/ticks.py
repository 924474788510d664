"""`mystocks ticks`: sends ticks from a file, and loads history."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Send ticks, load history.")


class Encoding(StrEnum):
    """How records are encoded."""

    BATCH = "batch"
    JSON = "json"
    ARROW = "arrow"


class Label(StrEnum):
    """Which moment of a bar the file's time is."""

    START = "start"
    END = "end"


class OnBad(StrEnum):
    """What a bad row does."""

    FAIL = "fail"
    SKIP = "skip"


@app.callback()
def ticks() -> None:
    """Send ticks, load history."""


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
    from schemas.topics import ticks_topic

    pace = Pace.parse(rate, speed)
    with open_ticks(file) as source:
        settings = resolve_settings(needs_redis=False)
        with TickProducer(
            settings=settings,
            topic=topic or ticks_topic(settings),
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


@app.command()
def backfill(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="FILE.csv, FILE.parquet or FILE.arrow.")
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option(help="Topic; by default market.bars.<interval>, or the topic of ticks."),
    ] = None,
    interval: Annotated[
        str | None, typer.Option(help="Of the bars, such as 1m or 1d; by default as they are.")
    ] = None,
    market: Annotated[
        str | None,
        typer.Option(help="cn, us, us_futures or crypto; by default by the suffix of each symbol."),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(help="Symbol of a file that has no column for it.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of times that have none; by default the market's, or UTC.")
    ] = None,
    label: Annotated[
        Label | None, typer.Option(help="Moment of a bar that its time is; by its name otherwise.")
    ] = None,
    on_bad: Annotated[
        OnBad, typer.Option("--on-bad", help="What a row does that is not acceptable.")
    ] = OnBad.FAIL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary.")] = False,
) -> None:
    """Load history: ticks, or bars of open, high, low, close.

    Columns are known by their usual names, also those of Tushare and yfinance. Daily bars end when
    their market closes. Loading a file again changes nothing: a bar there twice counts once.
    """
    from mystocks.backfill import Options
    from mystocks.backfill import backfill as load
    from mystocks.cli.backfill_display import describe, progress
    from mystocks.cli.endpoints import resolve_settings

    options = Options(
        to, interval, market, symbol, timezone, label.value if label else None, on_bad.value
    )
    settings = resolve_settings(needs_redis=False)
    with progress(Path(file).name, visible=sys.stderr.isatty()) as show:
        summary = load(settings, file, options, show)
    typer.echo(json.dumps(summary) if as_json else describe(summary))
