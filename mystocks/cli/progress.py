"""Progress of the work that only the first start on a machine has to do."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from streams.local.artifacts import Progress


@contextmanager
def first_start_progress() -> "Iterator[Progress]":
    """Gives a callback that shows a bar on standard error once there is something to show."""
    shown = _Bars()
    try:
        yield shown.update
    finally:
        shown.close()


class _Bars:
    def __init__(self) -> None:
        self._progress: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def update(self, step: str, done: int, total: int) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import Progress

            self._progress = Progress(console=Console(file=sys.stderr))
            self._progress.start()
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total)
        self._progress.update(self._tasks[step], completed=done)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
