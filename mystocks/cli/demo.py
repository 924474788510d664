"""`mystocks demo`: real prices through real Kafka and Redis, and proof that nothing got lost."""

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mystocks.cli.endpoints import own_settings
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from mystocks.cli.demo_run import DemoResult
    from schemas.settings import Settings

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Run the main job on real prices, with servers that exist only for this run.

    Exit status 0 only if every tick came out of the features topic exactly once, and the Redis
    table and a gRPC subscription agree with it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="mystocks-demo-") as directory:
        try:
            result = run(_private(own_settings(data_dir=Path(directory))))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(result.as_json()))
    else:
        _show(result)
    raise typer.Exit(1 if result.problems else 0)


def run(settings: "Settings") -> "DemoResult":
    """Starts everything, measures, and stops everything."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from mystocks.cli.demo_prices import daily_closes
    from mystocks.cli.demo_run import measure
    from mystocks.cli.local_run import LocalRun
    from mystocks.cli.progress import first_start_progress

    console = Console(stderr=True)
    ticks = daily_closes()
    console.print("starting Apache Kafka, Redis (Valkey) and the roles features, compute, bridge")
    with first_start_progress() as progress:
        local_run = LocalRun(settings, ephemeral=True, progress=progress, say=console.print)
        grpc_address = local_run.start().grpc
    if grpc_address is None:
        raise UnavailableError("expected the bridge to serve gRPC, did not; see its log")
    try:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("ticks in, features out", total=ticks.num_rows)
            return measure(
                local_run.settings,
                grpc_address,
                ticks,
                lambda done: bar.update(task, completed=done),
            )
    finally:
        local_run.stop()


def _private(settings: "Settings") -> "Settings":
    """The settings without configured servers: a demo writes to nobody's topics."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"bootstrap_servers": None}),
            "redis": settings.redis.model_copy(update={"url": None}),
        }
    )


def _show(result: "DemoResult") -> None:
    from rich.console import Console

    from mystocks.cli.demo_run import PACED_RATE
    from mystocks.cli.feature_display import tables

    console = Console(highlight=False)
    surfaces = {"Redis": result.redis_agrees, "gRPC": result.grpc_agrees}
    marks = {
        name: {symbol: "agrees" if same else "DIFFERS" for symbol, same in agrees.items()}
        for name, agrees in surfaces.items()
    }
    for table in tables(
        result.features, title="Latest features, from the topic features.ticks", marks=marks
    ):
        console.print(table)
    console.print(
        f"{result.ticks_in:,} ticks in, {result.ticks_out:,} rows out, {result.symbols} symbols\n"
        f"{result.ticks_per_second:,.0f} ticks/s from first send to last row read, over the first "
        f"{result.bulk_ticks:,}\n"
        f"latency p50 {result.latency_p50_ms:.0f} ms, p99 {result.latency_p99_ms:.0f} ms from send "
        f"to row read, at {PACED_RATE:.0f} ticks/s"
    )
    if result.problems:
        for problem in result.problems:
            console.print(f"[red]wrong:[/red] {problem}")
        return
    console.print(
        "[green]every tick came out exactly once[/green]: no gap in the row identities, no price\n"
        "missing or twice, Redis and gRPC equal to the topic\n\n"
        "next:  mystocks up                             keep it running\n"
        "       mystocks ticks produce FILE.csv         symbol,event_time_ns,price,size\n"
        "       mystocks features tail --symbol AAPL    rows as they are committed"
    )
