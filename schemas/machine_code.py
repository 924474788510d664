"""Compiled functions on disk, for as long as everything that they are made of is the same.

numba alone looks at the file that a function is in. Its machine code also holds the functions and
constants that this file imports, and those that they are made of: after a change there numba would
go on with the old ones.
"""

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import IndexDataCacheFile

_ROOT = Path(__file__).parents[1]
# Packages beside this one that have compiled functions, or what they use.
_PACKAGES = frozenset({"processors", "schemas", "streams"})


def kept_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Returns `numba.njit` without the interpreter lock and with machine code kept on disk.

    Args:
        **options: Further ones of `numba.njit`.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = njit(nogil=True, cache=True, **options)(function)
        # Not there where NUMBA_DISABLE_JIT leaves functions as they are.
        kept = getattr(kernel, "_cache", None)
        if kept is not None:
            kept._cache_file = IndexDataCacheFile(
                kept.cache_path,
                kept._impl.filename_base,
                source_stamp(Path(inspect.getfile(function))),
            )
        return kernel

    return decorate


@cache
def source_stamp(path: Path) -> str:
    """Returns a hash of a source file and of all that it imports from this project, all the way.

    Args:
        path: The file.
    """
    found, waiting = set[Path](), [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported(file)
    digest = hashlib.sha256()
    for file in sorted(found):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@cache
def _imported(path: Path) -> list[Path]:
    return [file for name in _names(path) for file in _files(name)]


def _names(path: Path) -> Iterator[str]:
    """Yields what may be modules among the names that a file imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[Path]:
    if name.partition(".")[0] in _PACKAGES:
        place = _ROOT.joinpath(*name.split("."))
        candidates = (place.with_suffix(".py"), place / "__init__.py")
        yield from (file for file in candidates if file.is_file())
