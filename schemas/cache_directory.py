"""Where files lie that can be fetched or made again."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """Returns ``$XDG_CACHE_HOME/mystocks`` (``~/.cache`` if unset or empty)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mystocks"
