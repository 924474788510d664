"""Generated kernel modules on disk, so that a second process start does not compile.

A module's file name is the hash of everything that its machine code depends on. numba keeps the
machine code beside it, in ``__pycache__``.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

import llvmlite
import llvmlite.binding
import numba
import numpy as np

from processors.disk_cache import write_by_rename
from schemas.cache_directory import cache_directory

_MODIFIED = 946_684_800
"""Modification time of every generated file: numba compares it, two writers must agree."""


def load_generated(text: str, cache_dir: Path | None = None) -> ModuleType:
    """Return the module with this text, written to the cache directory if it is not there.

    Args:
        text: Python source.
        cache_dir: Where generated modules are; ``kernels`` in `cache_directory` if None. A
            directory that cannot be written is replaced by a temporary one.
    """
    cpu = llvmlite.binding.get_host_cpu_name()
    parts = (text, numba.__version__, llvmlite.__version__, np.__version__, cpu)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    name = f"mystocks_kernel_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    directory = cache_dir or cache_directory() / "kernels"
    try:
        path = _write(directory, name, text)
    except OSError:
        path = _write(_temporary_dir(), name, text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _write(directory: Path, name: str, text: str) -> Path:
    """Write the module by rename; raise `OSError` if the machine code could not be kept there."""
    path = directory / f"{name}.py"
    (directory / "__pycache__").mkdir(parents=True, exist_ok=True)
    if not os.access(directory / "__pycache__", os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} is not writable")
    if path.exists() and path.read_text() == text:
        return path
    write_by_rename(path, lambda file: file.write(text.encode()), modified_s=_MODIFIED)
    return path


@cache
def _temporary_dir() -> Path:
    return Path(tempfile.mkdtemp(prefix="mystocks-kernels-"))
