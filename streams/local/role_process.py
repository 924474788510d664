"""One role as a child process: its log, its ready line, its end."""

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from streams.local.process import kill, spawn, wait_or_kill
from streams.local.rotated_file import RotatedFile

_LAST_LINES = 20


class RoleProcess:
    """A started role.

    Its output goes line by line to a rotated file and to `echo`. The JSON line with
    `"event": "ready"` tells that it works.
    """

    def __init__(
        self,
        role: str,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        log: Path,
        echo: Callable[[str, str], None],
    ) -> None:
        """Starts the role.

        Args:
            role: Its name.
            command: Program and arguments.
            env: Its whole environment.
            log: File for its output.
            echo: Called with (role, line) for every line; from another thread.
        """
        self.role = role
        self.started = time.monotonic()
        self.ready: dict[str, Any] | None = None
        self._echo = echo
        self._asked_to_stop = False
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._file = RotatedFile(log)
        self._process = spawn(command, output=subprocess.PIPE, env=env)
        self._reader = threading.Thread(target=self._read, name=f"log of {role}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """How it ended (negative: the signal that killed it); None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1.0)
        return status

    def ask_to_stop(self) -> None:
        """Sends SIGTERM: it finishes and commits what is in flight, then ends.

        It is sent once; a role takes a second signal as the wish to end at once.
        """
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.terminate()

    def stop(self, timeout_s: float) -> bool:
        """Ends it, by force after `timeout_s`; True when it ended by itself."""
        self.ask_to_stop()
        ended = wait_or_kill(self._process, timeout_s)
        self._reader.join(timeout=1.0)
        return ended

    def kill(self) -> None:
        """Ends it at once."""
        kill(self._process)

    def last_words(self) -> str:
        """The line that most likely tells why it ended."""
        lines = [line for line in self._last_lines if line.strip()]
        for line in reversed(lines):
            entry = _json_object(line)
            if entry.get("level") in ("error", "critical"):
                return str(entry.get("error") or entry.get("event"))
            if line.startswith("error:"):
                return line.removeprefix("error:").strip()
        return lines[-1] if lines else "no output"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for raw in self._process.stdout:
            self._file.write(raw)
            line = raw.decode(errors="replace").rstrip("\n")
            self._last_lines.append(line)
            entry = _json_object(line)
            if entry.get("event") == "ready" and entry.get("role") == self.role:
                self.ready = entry
            self._echo(self.role, line)
        self._file.close()


def _json_object(line: str) -> dict[str, Any]:
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
