"""Ticks: bytes of a topic to columns and back.

`schemas.ticks.encode` is all a client needs and imports neither numba nor numpy; the decoding
half is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schemas.processing import Refusal
    from schemas.ticks.columns import TickColumns
    from schemas.ticks.decoder import TickDecoder
    from schemas.ticks.symbol_table import SymbolTable

__all__ = ["Refusal", "SymbolTable", "TickColumns", "TickDecoder"]

_HOME = {
    "Refusal": "schemas.processing",
    "SymbolTable": "schemas.ticks.symbol_table",
    "TickColumns": "schemas.ticks.columns",
    "TickDecoder": "schemas.ticks.decoder",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
