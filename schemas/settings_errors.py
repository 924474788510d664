"""Readable errors for settings: which key, which value, what was expected, what to do."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from schemas.errors import ConfigurationError


@dataclass(frozen=True)
class Sources:
    """Where settings come from.

    Attributes:
        environ: All environment variables.
        prefix: What those of this project begin with.
        delimiter: What separates the levels of a variable's name.
        from_file: The parsed file.
        config: The file's path.
        overrides: Arguments.
    """

    environ: Mapping[str, str]
    prefix: str
    delimiter: str
    from_file: Mapping[str, Any]
    config: Path | None
    overrides: Mapping[str, Any]

    def variable(self, path: tuple[str, ...]) -> str:
        """Returns the environment variable of a setting."""
        return self.prefix + self.delimiter.join(path).upper()


def check_keys(root: type[BaseModel], sources: Sources) -> None:
    """Refuses keys that no setting has, in the environment, the file and the arguments.

    Raises:
        ConfigurationError: Names the key, its value and the most similar known key.
    """
    known_env = {sources.variable(path) for path in _paths(root)}
    for key, value in sorted(sources.environ.items()):
        if key.upper().startswith(sources.prefix) and key.upper() not in known_env:
            raise ConfigurationError(
                f"expected a setting, was the unknown variable {key}={_shorten(value)} "
                f"(environment); {_suggestion(key.upper(), known_env)}"
            )
    known = {".".join(path) for path in _paths(root)}
    where = f"file {sources.config}"
    for tree, place in ((sources.from_file, where), (sources.overrides, "argument")):
        for dotted, leaf in _leaves(tree):
            if dotted not in known:
                raise ConfigurationError(
                    f"expected a setting, was the unknown key {dotted} = {_shorten(leaf)} "
                    f"({place}); {_suggestion(dotted, known)}"
                )


def explain_validation_error(error: ValueError, root: type[BaseModel], sources: Sources) -> str:
    """Returns one line per problem: key where the user set it, the value, what was expected."""
    if not isinstance(error, ValidationError):
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return f"expected readable settings, was: {error}{cause}; correct that variable"
    lines = []
    for problem in error.errors(include_url=False):
        path = tuple(str(part) for part in problem["loc"] if isinstance(part, str))
        path = path[: _depth(root, path)]
        variable = sources.variable(path)
        if _holds(sources.overrides, path):
            key = ".".join(path)
        elif any(name.upper() == variable for name in sources.environ):
            key = variable
        elif _holds(sources.from_file, path):
            key = f"{'.'.join(path)} (file {sources.config})"
        else:
            key = variable
        message = problem["msg"].removeprefix("Value error, ")
        if message.startswith("Input should be "):
            message = "expected " + message.removeprefix("Input should be ")
        value = "(hidden)" if _is_secret(root, path) else _shorten(problem["input"])
        if isinstance(problem["input"], BaseModel | dict):
            lines.append(f"{key}: {message}")
        else:
            lines.append(f"{key} = {value}: {message}; correct the value")
    return "\n".join(lines)


def _section(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _paths(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        path = (*above, name)
        yield path
        section = _section(field.annotation)
        if section is not None:
            yield from _paths(section, path)


def _depth(root: type[BaseModel], path: tuple[str, ...]) -> int:
    model: type[BaseModel] | None = root
    for depth, name in enumerate(path):
        if model is None or name not in model.model_fields:
            return depth
        model = _section(model.model_fields[name].annotation)
    return len(path)


def _is_secret(root: type[BaseModel], path: tuple[str, ...]) -> bool:
    annotation: Any = None
    model: type[BaseModel] | None = root
    for name in path:
        if model is None or name not in model.model_fields:
            return False
        annotation = model.model_fields[name].annotation
        model = _section(annotation)
    return SecretStr in (annotation, *get_args(annotation))


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        dotted = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, dotted + ".")
        else:
            yield dotted, value


def _holds(tree: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if isinstance(tree, BaseModel):
            return name in tree.model_fields_set
        if not isinstance(tree, Mapping) or name not in tree:
            return False
        tree = tree[name]
    return True


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggestion(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return "remove it, or see the settings in the documentation"
