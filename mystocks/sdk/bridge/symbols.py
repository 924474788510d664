"""The symbols and features that a request names."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.errors import InvalidInputError
from schemas.symbols import symbol_problem


def symbol_list(symbols: str | Iterable[str] | None) -> list[str]:
    """Returns symbols as a list; an empty one stands for all.

    Raises:
        InvalidInputError: One of them is no symbol, or there is none.
    """
    if symbols is None:
        return []
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    for name in names:
        problem = symbol_problem(name) if isinstance(name, str) else f"symbol is {name!r:.80}"
        if problem:
            raise InvalidInputError(f"{problem} (symbols); correct it")
    if not names:
        raise InvalidInputError("expected at least one symbol, was none (symbols); None is all")
    return names


def feature_list(features: str | Iterable[str] | None, *, needed: bool = False) -> list[str]:
    """Returns names of features as a list; an empty one stands for all.

    Raises:
        InvalidInputError: One of them is no text, or there is none though `needed`.
    """
    if features is None:
        names: list[str] = []
    else:
        names = features.split(",") if isinstance(features, str) else list(features)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError(
                f"expected the name of a feature, was {name!r:.80} (features); correct it"
            )
    if not names and (needed or features is not None):
        raise InvalidInputError(
            "expected at least one feature, was none (features); for example sma_20"
        )
    return [name.strip() for name in names]
