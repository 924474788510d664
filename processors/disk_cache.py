"""Files that processes make once and share: complete, or not there."""

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_by_rename(
    path: Path, write: Callable[[BinaryIO], object], *, modified_s: int | None = None
) -> None:
    """Writes a file beside its place and moves it there.

    Args:
        path: Its place; the directory exists.
        write: Writes the content.
        modified_s: Time of its last change, seconds since 1970; None is now.

    Raises:
        OSError: The directory cannot be written.
    """
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".draft-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        if modified_s is not None:
            os.utime(draft, (modified_s, modified_s))
        Path(draft).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
        raise
