"""`mystocks features`: the latest rows from Redis, or all rows as they come."""

import contextlib
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from mystocks.sdk.rows import FeatureRow
    from schemas.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Read features.")

_SetOption = Annotated[
    str | None, typer.Option("--set", help="Feature set; by default that of the settings.")
]


@app.callback()
def features() -> None:
    """Read features."""


@app.command()
def get(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="One or more symbols.")],
    *,
    feature_set: _SetOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, symbol to row or null.")
    ] = False,
) -> None:
    """Show the latest row of symbols, from the Redis table. Exit status 1 if one has no row."""
    from mystocks.cli.endpoints import resolve_settings

    _check_symbols(symbols)
    settings = resolve_settings()
    rows = latest_rows(settings, feature_set or settings.features.name, symbols)
    missing = [symbol for symbol, row in rows.items() if row is None]
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        from rich.console import Console

        from mystocks.cli.feature_display import tables

        console = Console()
        for table in tables({s: row for s, row in rows.items() if row is not None}):
            console.print(table)
    if missing:
        typer.echo(f"no row yet: {', '.join(missing)}", err=True)
        raise typer.Exit(1)


@app.command()
def tail(
    *,
    symbols: Annotated[
        list[str] | None, typer.Option("--symbol", help="Only this symbol; may be repeated.")
    ] = None,
    feature_set: _SetOption = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="latest, earliest, a time such as 2013-02-28T21:00Z, or a resume token."
        ),
    ] = "latest",
    limit: Annotated[int | None, typer.Option(min=1, help="End after this many rows.")] = None,
    timeout: Annotated[
        float | None, typer.Option(help="End when no row came for this many seconds.")
    ] = None,
    follow: Annotated[
        bool, typer.Option(help="Wait for new rows, or end with what is there now.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a row.")] = False,
) -> None:
    """Show rows as they are committed, until Ctrl-C."""
    from mystocks.cli.endpoints import resolve_settings
    from mystocks.sdk.subscriber import FeatureSubscriber

    begin = _start(start)
    _check_symbols(symbols or [])
    settings = resolve_settings(needs_redis=False)
    subscriber = FeatureSubscriber(
        settings=settings,
        set=feature_set or settings.features.name,
        symbols=symbols or None,
        start=begin,
        follow=follow,
        limit=limit,
        timeout_s=timeout,
    )
    with subscriber, contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        header = as_json
        for row in subscriber:
            if not header:
                _print_line(_names(row))
                header = True
            _print_line(_json(row) if as_json else _text(row))


def latest_rows(
    settings: "Settings", feature_set: str, symbols: list[str]
) -> dict[str, dict[str, Any] | None]:
    """Returns the latest row of each symbol from the Redis table; None where there is none.

    Raises:
        UnavailableError: Redis does not answer, or its client library is not installed.
    """
    try:
        import redis

        from streams.tables.feature_table import TableNames, connect
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"expected the package {error.name} to be installed, was not; "
            "install mystocks-streams[server]"
        ) from None
    client = connect(settings.redis)
    try:
        values = client.hmget(TableNames.of(feature_set).rows, symbols)
    except redis.RedisError as error:
        raise UnavailableError(
            f"expected Redis at {settings.redis.redacted_url()}, was not there ({error}); "
            "start it with `mystocks up` or correct MYSTOCKS_REDIS__URL"
        ) from None
    finally:
        client.close()
    return {
        symbol: None if value is None else json.loads(value)
        for symbol, value in zip(symbols, list(values), strict=True)
    }


def _check_symbols(symbols: list[str]) -> None:
    from schemas.symbols import symbol_problem

    for symbol in symbols:
        problem = symbol_problem(symbol)
        if problem:
            raise InvalidInputError(f"{problem} (SYMBOL); correct it")


def _start(text: str) -> str | datetime:
    if text in ("latest", "earliest") or text.startswith("v1:"):
        return text
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            "expected latest, earliest, a time such as 2013-02-28T21:00Z or a resume token, "
            f"was {text!r:.120} (--from); correct it"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _json(row: "FeatureRow") -> str:
    place = {"partition": row.partition, "row": row.row}
    fixed = {"symbol": row.symbol, "event_time_ns": row.event_time_ns, "price": row.price}
    return json.dumps(fixed | place | row.values)


_WIDTH = 12


def _names(row: "FeatureRow") -> str:
    names = "".join(f"{name:>{_WIDTH}}" for name in ("price", *row.values))
    return f"{'time (UTC)':<20} {'symbol':<10}{names}"


def _text(row: "FeatureRow") -> str:
    from mystocks.cli.feature_display import number_text, time_text

    values = (row.price, *row.values.values())
    numbers = "".join(f"{number_text(value):>{_WIDTH}}" for value in values)
    return f"{time_text(row.event_time_ns):<20} {row.symbol:<10}{numbers}"


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
