"""What a request may ask for: how many symbols and features, and what their names look like."""

from collections.abc import Sequence
from typing import NamedTuple

from schemas.symbols import symbol_problem

# More than a stock exchange lists. Each costs a stream some hundred bytes, and whoever reads nearly
# a whole market reads all of it more cheaply.
MAX_SYMBOLS = 20_000
MAX_NAMES = 1000
# A feature's name is an identifier; the longest that indicators make is far below.
MAX_NAME_LENGTH = 128


class SelectionProblem(NamedTuple):
    """Why a request is not acceptable.

    Attributes:
        field: Path of the field to blame.
        text: "expected X, was Y; do Z".
    """

    field: str
    text: str


def symbols_problem(symbols: Sequence[str], field: str) -> SelectionProblem | None:
    """Returns what is wrong with the symbols that a request names; None if nothing is.

    Args:
        symbols: As they came.
        field: Path of the field they stand in.
    """
    if len(symbols) > MAX_SYMBOLS:
        return SelectionProblem(
            field,
            f"expected at most {MAX_SYMBOLS} symbols, was {len(symbols)}; ask several times, or "
            "for all symbols",
        )
    for i, symbol in enumerate(symbols):
        if problem := symbol_problem(symbol):
            return SelectionProblem(f"{field}[{i}]", f"{problem}; correct it")
    return None


def names_problem(names: Sequence[str], field: str) -> SelectionProblem | None:
    """Returns what is wrong with the names of features in a request; None if nothing is.

    Args:
        names: As they came.
        field: Path of the field they stand in.
    """
    if len(names) > MAX_NAMES:
        return SelectionProblem(
            field, f"expected at most {MAX_NAMES} names, was {len(names)}; ask for all features"
        )
    for i, name in enumerate(names):
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            return SelectionProblem(
                f"{field}[{i}]",
                f"expected the name of a feature, of 1 to {MAX_NAME_LENGTH} characters, was "
                f"{len(name)} ({name!a:.80}); correct it",
            )
    return None
