"""What a reader wants to see, checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from grpc_bridge.fanout.errors import BadSelectionError
from mystocks.v1.realtime_pb2 import FeatureSelection, SlowReaderPolicy
from schemas.selections import SelectionProblem, names_problem, symbols_problem

# As in the settings: part of a topic's name.
_SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Of a set's features, an error lists so many.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows and columns of a feature set; readers with an equal choice share their encoded bytes.

    Attributes:
        symbols: Symbols to show; None for all.
        names: Features to show, in this order; None for all of the set.
        since_ns: Rows with an older event time (ns since 1970, UTC) are left out; None for no
            such bound.
    """

    symbols: AbstractSet[str] | None = None
    names: tuple[str, ...] | None = None
    since_ns: int | None = None


def set_name(name: str, default: str, field: str = "feature_set") -> str:
    """Returns the name of a feature set.

    Args:
        name: From a request; empty is the default one.
        default: Name of the set of the settings.
        field: Where in the request it stands.

    Raises:
        BadSelectionError: It cannot be a name of a set.
    """
    if name and not _SET_NAME.fullmatch(name):
        raise BadSelectionError(
            f"expected the name of a feature set, such as {default}, was {name!r:.80}", field
        )
    return name or default


def checked_symbols(symbols: Sequence[str], field: str = "symbols") -> frozenset[str]:
    """Returns symbols.

    Raises:
        BadSelectionError: They are too many, or one of them cannot be a symbol; the message names
            which.
    """
    _refuse(symbols_problem(symbols, field))
    return frozenset(symbols)


def checked_names(names: Sequence[str], field: str = "names") -> tuple[str, ...]:
    """Returns names of features, each once.

    Raises:
        BadSelectionError: They are too many, or one of them cannot be a name.
    """
    _refuse(names_problem(names, field))
    return tuple(dict.fromkeys(names))


def _refuse(problem: SelectionProblem | None) -> None:
    if problem is not None:
        raise BadSelectionError(problem.text, problem.field)


def choice_of(
    selection: FeatureSelection, since_ns: int | None, field: str = "selection"
) -> Choice:
    """Returns the choice that a selection makes.

    Args:
        selection: From a request.
        since_ns: Bound on event time, ns since 1970 UTC.
        field: Where in the request it stands.

    Raises:
        BadSelectionError: A field is not acceptable.
    """
    if selection.policy not in SlowReaderPolicy.values():
        raise BadSelectionError(
            f"expected a policy of SlowReaderPolicy, was {selection.policy}", f"{field}.policy"
        )
    symbols = checked_symbols(selection.symbols, f"{field}.symbols") or None
    names = checked_names(selection.names, f"{field}.names")
    return Choice(symbols, names or None, since_ns)


def check_names(choice: Choice, columns: Sequence[str], field: str = "selection.names") -> None:
    """Checks the names of a choice against those of the set.

    Raises:
        BadSelectionError: The set has no such feature; the message lists those it has.
    """
    known = frozenset(columns)
    unknown = next((name for name in choice.names or () if name not in known), None)
    if unknown is not None:
        raise BadSelectionError(
            f"expected features of the set, which has {listed(columns)}, was {unknown!r:.80}", field
        )


def listed(names: Sequence[str]) -> str:
    """Returns names for an error, the first ones where there are many."""
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
