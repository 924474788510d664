"""`mystocks topics`: the topics of the settings, and their creation."""

import json
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="List and create topics.")

_ANSWER_TIMEOUT_S = 5.0
_JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.callback()
def topics() -> None:
    """List and create topics."""


@app.command(name="list")
def list_topics(*, as_json: _JsonOption = False) -> None:
    """Show which topics there should be and which exist."""
    from mystocks.cli.endpoints import resolve_settings
    from schemas.topics import topic_specs
    from streams.kafka.admin import admin_client
    from streams.kafka.clients import CALL_TIMEOUT_S

    settings = resolve_settings(needs_redis=False)
    existing = admin_client(settings, _ANSWER_TIMEOUT_S).list_topics(timeout=CALL_TIMEOUT_S).topics
    rows = [
        {
            "topic": spec.name,
            "exists": spec.name in existing,
            "partitions": len(existing[spec.name].partitions)
            if spec.name in existing
            else spec.partitions,
            "key": spec.key,
            "value": spec.value,
        }
        for spec in topic_specs(settings)
    ]
    if as_json:
        typer.echo(json.dumps({"topics": rows}))
        return
    width = max(len(str(row["topic"])) for row in rows)
    for row in rows:
        state = f"{row['partitions']} partitions" if row["exists"] else "missing"
        typer.echo(f"{row['topic']:<{width}}  {state:<14}{row['key']} -> {row['value']}")


@app.command()
def apply(*, as_json: _JsonOption = False) -> None:
    """Create the topics that do not exist; existing ones stay as they are."""
    from mystocks.cli.endpoints import resolve_settings
    from schemas.topics import topic_specs
    from streams.kafka.admin import ensure_topics

    settings = resolve_settings(needs_redis=False)
    specs = topic_specs(settings)
    created = ensure_topics(settings, specs)
    if as_json:
        typer.echo(json.dumps({"created": created, "topics": len(specs)}))
    else:
        typer.echo(f"{len(created)} of {len(specs)} topics created")
        for name in created:
            typer.echo(f"  {name}")
