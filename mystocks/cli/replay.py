"""`mystocks replay`: the features of the past, computed again and paced as they happened."""

import json
from typing import Annotated, Any

import typer

from schemas.errors import InvalidInputError

app = typer.Typer()

_CONTROLS = ("pause", "resume", "cancel")


@app.command()
def replay(
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC|pause|resume|cancel",
            help="Topic of ticks or bars, or what to do with the run that follows.",
        ),
    ],
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="With pause, resume and cancel.")
    ] = None,
    *,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Event time of the first row: 2026-01-31T14:30Z, or nanoseconds."
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", help="Event time before which the last one is; else the log's end."),
    ] = None,
    speed: Annotated[
        str, typer.Option(metavar="N|max", help="Event time per wall-clock time.")
    ] = "max",
    symbols: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Names the output; a new one by default.")
    ] = None,
    into: Annotated[str | None, typer.Option(help="Write to this empty topic instead.")] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Begin with empty state at the start.")
    ] = False,
    feature_set: Annotated[
        str | None, typer.Option("--set", help="Name of the feature set; that of the settings.")
    ] = None,
    indicators: Annotated[
        str | None, typer.Option(help="Of another set than the live one, separated by commas.")
    ] = None,
    bars: Annotated[
        str | None, typer.Option(metavar="INTERVAL", help="Bars such as 1m instead of features.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Run in this process, without role `replay`.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute the features of a range of event time again, into a topic of their own.

    The rows equal those of live bit for bit and go to features.<set>.replay.<run>, at --speed times
    the speed at which they happened. Role `replay` does the work, and goes on if this command ends;
    `mystocks replay pause|resume|cancel RUN` tells it more.
    """
    from mystocks.cli import replay_run
    from mystocks.cli.endpoints import resolve_settings
    from schemas.replay import ReplayRequest
    from schemas.times import nanoseconds

    settings = resolve_settings(needs_redis=False)
    if topic in _CONTROLS:
        if run is None:
            raise InvalidInputError(
                f"expected the id of a run after {topic}, was none; "
                f"for example `mystocks replay {topic} RUN`"
            )
        _print(replay_run.tell(settings, topic, run), as_json=as_json)
        return
    if run is not None or start is None:
        raise InvalidInputError(
            "expected `mystocks replay TOPIC --from T`, was "
            f"{'a second argument' if run is not None else 'no --from'}; see --help"
        )
    request = ReplayRequest(
        run=run_id or replay_run.new_run(),
        start_ns=nanoseconds(start, "--from"),
        end_ns=None if end is None else nanoseconds(end, "--to"),
        topic=topic,
        feature_set=feature_set or "",
        indicators=_split(indicators),
        symbols=_split(symbols),
        speed=replay_run.parse_speed(speed),
        into=into or "",
        cold=cold,
        bars=bars or "",
    )
    run_it = replay_run.run_here if local else replay_run.run_by_role
    result = run_it(settings, request)
    _print(result, as_json=as_json)
    if result["state"] != "SUCCEEDED":
        raise typer.Exit(1)


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result))
        return
    for key, value in result.items():
        if value != "":
            typer.echo(f"{key:<8} {value}")
