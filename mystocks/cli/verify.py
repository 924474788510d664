"""`mystocks verify`: is a log what it should be?"""

import json
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def verify(
    topic: Annotated[
        str | None,
        typer.Argument(help="A topic of features, ticks or bars; by default that of the features."),
    ] = None,
    *,
    recompute: Annotated[
        bool, typer.Option(help="Compute the rows of a features topic again from the ticks.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a log: row identities, none missing or doubled, order, checksums, and the numbers.

    Rows that the group has committed and that are not at the end of the log are missing too.

    The features are computed again from the ticks with the settings of the feature set, and
    compared bit for bit. Exit status 1 if anything is wrong.
    """
    from mystocks.cli.endpoints import resolve_settings
    from mystocks.cli.verify_run import FeatureReport, TickReport, verify_features, verify_ticks
    from schemas.topics import carries_bars, features_topic

    settings = resolve_settings(needs_redis=False)
    report: FeatureReport | TickReport
    if topic is not None and (topic == settings.features.source_topic or carries_bars(topic)):
        report = verify_ticks(settings, topic)
    else:
        name = topic or features_topic(settings.features.name)
        report = verify_features(settings, name, recompute=recompute)
    found = report.as_json()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for key, value in found.items():
            if isinstance(value, list):
                for text in value:
                    typer.echo(f"{key[:-1] if key.endswith('s') else key:<14} {text}")
            elif isinstance(value, dict):
                for text, number in value.items():
                    typer.echo(f"{number:>14,} x {text}")
            else:
                shown = f"{value:,}" if isinstance(value, int) else value
                typer.echo(f"{key:<14} {shown}")
    if not report.ok:
        raise typer.Exit(1)
