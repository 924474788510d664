"""What a reader wants to see, checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grpc_bridge.fanout.errors import BadSelectionError
from mystocks.v1.realtime_pb2 import FeatureSelection, SlowReaderPolicy
from schemas.symbols import symbol_problem

DEFAULT_SET = "ticks"
# As in the settings: part of a topic's name.
_SET_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# A feature's name is an identifier; the longest that indicators make is far below.
_MAX_NAME = 128
_MAX_NAMES = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows and columns of a feature set; readers with an equal choice share their encoded bytes.

    Attributes:
        symbols: Symbols to show; None for all.
        names: Features to show, in this order; None for all of the set.
        since_ns: Rows with an older event time (ns since 1970, UTC) are left out; None for no
            such bound.
    """

    symbols: frozenset[str] | None = None
    names: tuple[str, ...] | None = None
    since_ns: int | None = None


def set_name(name: str, field: str = "feature_set") -> str:
    """Returns the name of a feature set; empty is the default one.

    Raises:
        BadSelectionError: It cannot be a name of a set.
    """
    if name and not _SET_NAME.fullmatch(name):
        raise BadSelectionError(
            f"expected the name of a feature set, such as {DEFAULT_SET}, was {name!r:.80}", field
        )
    return name or DEFAULT_SET


def checked_symbols(symbols: Iterable[str], field: str = "symbols") -> frozenset[str]:
    """Returns symbols.

    Raises:
        BadSelectionError: One of them cannot be a symbol; the message names which.
    """
    found = []
    for i, symbol in enumerate(symbols):
        problem = symbol_problem(symbol)
        if problem:
            raise BadSelectionError(f"{problem}; correct it", f"{field}[{i}]")
        found.append(symbol)
    return frozenset(found)


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
    names = tuple(dict.fromkeys(selection.names))
    if len(names) > _MAX_NAMES:
        raise BadSelectionError(
            f"expected at most {_MAX_NAMES} names, was {len(names)}", f"{field}.names"
        )
    for i, name in enumerate(names):
        if not name or len(name) > _MAX_NAME:
            raise BadSelectionError(
                f"expected the name of a feature, was {name!r:.80}", f"{field}.names[{i}]"
            )
    return Choice(symbols, names or None, since_ns)


def check_names(choice: Choice, columns: Sequence[str], field: str = "selection.names") -> None:
    """Checks the names of a choice against those of the set.

    Raises:
        BadSelectionError: The set has no such feature; the message lists those it has.
    """
    unknown = [name for name in choice.names or () if name not in columns]
    if unknown:
        raise BadSelectionError(
            f"expected features of the set, which has {', '.join(columns)}, was {unknown[0]!r:.80}",
            field,
        )
