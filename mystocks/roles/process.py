"""What every role process has: settings, logs, metrics, a slot, signals, a ready line."""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import structlog

from schemas.settings import Settings
from streams.logs import configure_logs
from streams.metrics import LoopMetrics
from streams.slots import take_slot

_log = structlog.get_logger(__name__)


class RoleProcess:
    """The process side of a role.

    Args:
        role: Name of the role.
        settings: Logs, metrics and data directory.

    Attributes:
        metrics: Served on `/metrics` as soon as the object exists.
    """

    def __init__(self, role: str, settings: Settings) -> None:
        self._role = role
        self._settings = settings
        configure_logs(settings.log, role=role)
        self.metrics = LoopMetrics()
        self._metrics_url = self.metrics.serve(settings.metrics.host, settings.metrics.port)

    @contextlib.contextmanager
    def slot(self, name: str, wanted: int | None) -> Iterator[str]:
        """Holds a slot and yields the identity ``<name>.<slot>``."""
        with take_slot(self._settings.data_dir / "slots", name, wanted) as slot:
            yield f"{name}.{slot}"

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Calls `stop` at SIGTERM or SIGINT; a second signal ends the process at once."""

        def handle(number: int, _frame: FrameType | None) -> None:
            _log.info("stopping", signal=signal.Signals(number).name)
            signal.signal(number, signal.SIG_DFL)
            stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)

    def ready(self, **more: str) -> None:
        """Tells the supervisor, by one JSON line on standard output, that work goes on.

        Args:
            **more: Added to the line, such as an address.
        """
        self.metrics.ready()
        line = {"event": "ready", "role": self._role, "metrics": self._metrics_url, **more}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
