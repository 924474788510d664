"""`mystocks dead-letters`: what was refused, why, and sending it again."""

import base64
import json
import sys
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import InvalidInputError
from schemas.times import nanoseconds

if TYPE_CHECKING:
    from schemas.settings import Settings
    from streams.kafka.dead_letters import Letter, LetterFilter

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="List, show, export and requeue dead letters."
)

_PREVIEW_BYTES = 400

_TopicArgument = Annotated[
    str | None,
    typer.Argument(help="Topic whose records were refused; by default that of the ticks."),
]
_IdOption = Annotated[
    list[str] | None,
    typer.Option("--id", help="A letter, PARTITION:OFFSET of its record; may be repeated."),
]
_ReasonOption = Annotated[str | None, typer.Option("--reason", help="Text in the reason.")]
_SinceOption = Annotated[
    str | None, typer.Option("--since", help="Oldest record time, such as 2026-01-31T14:30Z.")
]
_UntilOption = Annotated[
    str | None, typer.Option("--until", help="Newest record time, not included.")
]
_AllOption = Annotated[bool, typer.Option("--all", help="Also those that were sent again since.")]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def dead_letters() -> None:
    """List, show, export and requeue dead letters."""


@app.command(name="list")
def list_command(
    topic: _TopicArgument = None,
    *,
    ids: _IdOption = None,
    reason: _ReasonOption = None,
    since: _SinceOption = None,
    until: _UntilOption = None,
    everything: _AllOption = False,
    as_json: _JsonOption = False,
) -> None:
    """Show which records were refused and why, one line each, and the reasons by number."""
    _, _, letters = _find(topic, _filter(ids, reason, since, until, everything))
    if as_json:
        typer.echo(json.dumps({"letters": [_as_json(letter) for letter in letters]}))
        return
    for letter in letters:
        state = "requeued" if letter.requeued else f"attempt {letter.attempt}"
        what = "record" if letter.rows is None else f"{len(letter.rows)} ticks"
        typer.echo(
            f"{_id(letter):<14} {_time(letter.timestamp_ms)}  {state:<10} {what:<10} "
            f"{letter.reason}"
        )
    for text, number in Counter(letter.reason for letter in letters).most_common(20):
        typer.echo(f"{number:>8} x {text}", err=True)


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="PARTITION:OFFSET", help="Which letter.")],
    topic: _TopicArgument = None,
    *,
    as_json: _JsonOption = False,
) -> None:
    """Show one refused record with its headers and its bytes."""
    from streams.kafka.dead_letters import LetterFilter, letter_values

    wanted = LetterFilter(places=_places([letter_id]), requeued=True)
    settings, source, letters = _find(topic, wanted)
    for letter, message, value in letter_values(settings, source, letters):
        headers = {
            name: (text or b"").decode("utf-8", "replace") for name, text in message.headers() or ()
        }
        if as_json:
            content = {"value_base64": base64.b64encode(value).decode(), "headers": headers}
            typer.echo(json.dumps(_as_json(letter) | content))
            return
        for name, text in headers.items():
            typer.echo(f"{name:<16} {text}")
        typer.echo(f"{'key':<16} {_readable(message.key() or b'')}")
        typer.echo(f"{'value':<16} {len(value)} bytes")
        typer.echo(_readable(value))
        return
    raise InvalidInputError(
        f"expected a dead letter {letter_id} of {source}, was none (PARTITION:OFFSET); "
        "`mystocks dead-letters list` shows which there are"
    )


@app.command()
def requeue(
    topic: _TopicArgument = None,
    *,
    ids: _IdOption = None,
    reason: _ReasonOption = None,
    since: _SinceOption = None,
    until: _UntilOption = None,
    everything: _AllOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = (
        False
    ),
    as_json: _JsonOption = False,
) -> None:
    """Send refused records to their topic again, in order, each one once.

    Of a record that was refused in part only the refused ticks are sent, and only for the groups
    that refused them: others pass them over. Ticks on a wrong partition go to their own. What is
    sent carries the headers `attempt` and `for_groups`. Exit status 1 if a record could not be
    sent.
    """
    from schemas.ticks.select_rows import select_rows
    from streams.kafka.dead_letters import requeue as send_again

    settings, source, letters = _find(topic, _filter(ids, reason, since, until, everything))
    if dry_run:
        _report(letters, [], as_json=as_json, done="would be sent")
        return
    result = send_again(settings, source, letters, select_rows)
    skipped = [(letter, text) for letter, text in result.skipped]
    _report(result.sent, skipped, as_json=as_json, done="sent")
    if skipped:
        raise typer.Exit(1)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="JSON lines to write; - is standard output.")],
    topic: _TopicArgument = None,
    *,
    ids: _IdOption = None,
    reason: _ReasonOption = None,
    since: _SinceOption = None,
    until: _UntilOption = None,
    everything: _AllOption = False,
) -> None:
    """Write letters with their bytes (base64) to a file, one JSON object a line."""
    from streams.kafka.dead_letters import letter_values

    settings, source, letters = _find(topic, _filter(ids, reason, since, until, everything))
    lines = (
        json.dumps(_as_json(letter) | {"value_base64": base64.b64encode(value).decode()})
        for letter, _, value in letter_values(settings, source, letters)
    )
    if str(file) == "-":
        sys.stdout.writelines(line + "\n" for line in lines)
        return
    with file.open("w", encoding="utf-8") as out:
        count = sum(1 for line in lines if out.write(line + "\n"))
    typer.echo(f"{count} dead letters written to {file}")


def _find(topic: str | None, wanted: "LetterFilter") -> "tuple[Settings, str, list[Letter]]":
    from mystocks.cli.endpoints import resolve_settings
    from streams.kafka.dead_letters import list_letters

    settings = resolve_settings(needs_redis=False)
    source = topic or settings.features.source_topic
    return settings, source, list_letters(settings, source, wanted)


def _filter(
    ids: list[str] | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    everything: bool,
) -> "LetterFilter":
    from streams.kafka.dead_letters import LetterFilter

    return LetterFilter(
        reason=reason,
        since_ms=_time_ms(since, "--since"),
        until_ms=_time_ms(until, "--until"),
        places=_places(ids) if ids else None,
        requeued=everything,
    )


def _places(ids: Iterable[str]) -> frozenset[tuple[int, int]]:
    found = set()
    for text in ids:
        partition, colon, offset = text.partition(":")
        if not colon or not (partition + offset).isdigit() or not partition or not offset:
            raise InvalidInputError(
                f"expected PARTITION:OFFSET such as 0:1234, was {text!r} (--id); correct it"
            )
        found.add((int(partition), int(offset)))
    return frozenset(found)


def _time_ms(text: str | None, option: str) -> int | None:
    """Returns the first millisecond that is not before a time."""
    return None if text is None else -(-nanoseconds(text, option) // 1_000_000)


def _id(letter: "Letter") -> str:
    return f"{letter.partition}:{letter.offset}"


def _as_json(letter: "Letter") -> dict[str, Any]:
    return {
        "id": _id(letter),
        "time": _time(letter.timestamp_ms),
        "reason": letter.reason,
        "groups": sorted(letter.groups),
        "waiting": sorted(letter.waiting),
        "rows": None if letter.rows is None else sorted(letter.rows),
        "bytes": letter.size,
        "attempt": letter.attempt,
        "requeued": letter.requeued,
    }


def _time(timestamp_ms: int) -> str:
    time = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


def _readable(value: bytes) -> str:
    text = value[:_PREVIEW_BYTES].decode("utf-8", "backslashreplace")
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return printable + (" ..." if len(value) > _PREVIEW_BYTES else "")


def _report(
    sent: "list[Letter]", skipped: "list[tuple[Letter, str]]", *, as_json: bool, done: str
) -> None:
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "sent": [_id(letter) for letter in sent],
                    "skipped": {_id(letter): text for letter, text in skipped},
                }
            )
        )
        return
    typer.echo(f"{len(sent)} dead letters {done}")
    for letter, text in skipped:
        typer.echo(f"{_id(letter)} not sent: {text}", err=True)
