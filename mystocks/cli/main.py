"""The command line `mystocks`.

Every module of this package that has an `app` (a Typer application) is a command of the module's
name; adding one is adding a file. A module is imported only when its command runs, or for help.
"""

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from mystocks import cli
from mystocks.cli import endpoints
from schemas.errors import MyStocksError

_CONFIG_OPTION = "--config"


class CommandFiles(typer.core.TyperGroup):
    """A group whose commands are the modules of this package."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(cli.__path__))
        return sorted(name for name in names if self.get_command(ctx, name) is not None)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - signature is given
        """Imports a command; None if there is none of that name."""
        if cmd_name not in self.commands:
            app = _load(cmd_name)
            if app is None:
                return None
            command = typer.main.get_command(app)
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Finds the command; an unknown name is answered with the closest ones."""
        if self.get_command(ctx, args[0]) is None:
            self.list_commands(ctx)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=CommandFiles,
    help="Event streaming for market data: ticks in, features out, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mystocks {version('mystocks-streams')}")
        raise typer.Exit


@app.callback()
def options(
    config: Annotated[
        Path | None, typer.Option(_CONFIG_OPTION, help="TOML file with settings.")
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Event streaming for market data: ticks in, features out, exactly once."""
    endpoints.use_config_file(config)


def main() -> None:
    """Runs the command of `sys.argv`; an expected error is one line and an exit status."""
    try:
        app(args=_config_first(sys.argv[1:]))
    except MyStocksError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(str(error), 1)


def _fail(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


def _load(command: str) -> typer.Typer | None:
    name = command.replace("-", "_")
    if not name.isidentifier() or name == "main":
        return None
    try:
        module = importlib.import_module(f"{cli.__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name == f"{cli.__name__}.{name}":
            return None
        raise
    app = getattr(module, "app", None)
    return app if isinstance(app, typer.Typer) else None


def _config_first(arguments: list[str]) -> list[str]:
    """Moves `--config FILE` to the front, so that it is accepted after a command too."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument == _CONFIG_OPTION and index + 1 < len(arguments):
            option = arguments[index : index + 2]
            return option + arguments[:index] + arguments[index + 2 :]
        if argument.startswith(f"{_CONFIG_OPTION}="):
            return [argument, *arguments[:index], *arguments[index + 1 :]]
    return arguments


if __name__ == "__main__":
    main()
