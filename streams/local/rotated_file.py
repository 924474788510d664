"""A log file that is cut into a bounded number of parts."""

from pathlib import Path
from typing import IO

_PART_BYTES = 10 * 1024 * 1024
_PARTS = 5


class RotatedFile:
    """Appends lines to `path`; older parts are `path.1` (newest) to `path.4`.

    A disk that is full costs lines, never the writer: the role behind it goes on.
    """

    def __init__(self, path: Path, part_bytes: int = _PART_BYTES, parts: int = _PARTS) -> None:
        """Opens the file.

        Args:
            path: The file that is written.
            part_bytes: Size at which a new part begins.
            parts: How many parts are kept, the current one included.
        """
        self._path = path
        self._part_bytes = part_bytes
        self._parts = parts
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def write(self, line: bytes) -> None:
        """Appends a line as it is."""
        try:
            if self._file.tell() + len(line) > self._part_bytes:
                self._rotate()
            self._file.write(line)
        except OSError:
            return

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._parts - 1, 0, -1):
            older = self._part(number - 1)
            if older.exists():
                older.replace(self._part(number))
        self._file = self._path.open("ab", buffering=0)

    def _part(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
