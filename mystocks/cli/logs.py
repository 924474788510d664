"""`mystocks logs`: what roles and embedded servers have written."""

import os
import time
from collections import deque
from pathlib import Path
from typing import IO, Annotated

import typer

from mystocks.cli.endpoints import own_settings, running_stack
from schemas.errors import InvalidInputError

app = typer.Typer()

_POLL_S = 0.2


@app.command()
def logs(
    role: Annotated[
        str | None, typer.Argument(help="A role, `kafka` or `redis`; all roles without it.")
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Last lines to show.")] = 100,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data directory of the stack that is meant.")
    ] = None,
) -> None:
    """Show the logs of the running stack, or those of the last run."""
    files = select(_directory(data_dir), role)
    opened: dict[str, IO[str]] = {name: path.open(errors="replace") for name, path in files.items()}
    prefix = len(files) > 1
    try:
        for name, file in opened.items():
            for line in deque(file, maxlen=lines):
                _show(name, line, prefix)
        while follow:
            for name, path in files.items():
                replaced = _is_replaced(opened[name], path)  # if so, the old one is complete
                for line in opened[name]:
                    _show(name, line, prefix)
                if replaced:
                    opened[name].close()
                    opened[name] = path.open(errors="replace")
            time.sleep(_POLL_S)
    finally:
        for file in opened.values():
            file.close()


def select(directory: Path, role: str | None) -> dict[str, Path]:
    """Log files by name.

    Args:
        directory: Where they lie.
        role: The one that is wanted; None stands for all roles, without the embedded servers.

    Raises:
        InvalidInputError: There is no such log.
    """
    files = {path.stem: path for path in sorted(directory.glob("*.log"))}
    wanted = (
        {name: path for name, path in files.items() if name not in ("kafka", "redis")}
        if role is None
        else {name: path for name, path in files.items() if name == role}
    )
    if not wanted:
        known = ", ".join(files) or "none, as nothing has run with this data directory"
        raise InvalidInputError(
            f"expected one of the logs in {directory} ({known}), was {role or 'all roles'}"
        )
    return wanted


def _directory(data_dir: Path | None) -> Path:
    state = running_stack(data_dir)
    directory = Path(state.data_dir) if state else data_dir or own_settings().data_dir
    return directory.expanduser() / "logs"


def _is_replaced(file: IO[str], path: Path) -> bool:
    """Whether `path` is another file by now, after a rotation or a restart."""
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _show(name: str, line: str, prefix: bool) -> None:
    typer.echo(f"{name} | {line}" if prefix else line, nl=not line.endswith("\n"))
