"""Libraries that a user may or may not have."""

from importlib import import_module
from typing import Any

from mystocks.sdk.errors import MissingLibraryError


def need_library(library: str, method: str) -> Any:
    """Returns a library.

    Args:
        library: Name of it.
        method: Of a frame, which needs it.

    Raises:
        MissingLibraryError: It is not installed.
    """
    try:
        return import_module(library)
    except ImportError:
        raise MissingLibraryError(
            f"expected {library} to be installed, was not ({method}); install it with "
            f"`pip install {library}`, or use to_arrow()"
        ) from None
