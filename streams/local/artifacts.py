"""Kafka's jars: pinned by version and sha256, downloaded once, shared by all data directories.

`kafka_jars.lock` lists every artefact as `group:artifact:version sha256:digest`. Each one is
fetched by itself: a resolver that follows dependencies would pick versions of its own.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schemas.cache_directory import cache_directory
from streams.local.errors import DownloadError

KAFKA_VERSION = "4.3.1"
LOCK_FILE = Path(__file__).with_name("kafka_jars.lock")

_DOWNLOADS_AT_ONCE = 8
_ATTEMPTS = 3
_HTTP_TIMEOUT_S = 60


@dataclass(frozen=True)
class Artifact:
    """One line of the lock file."""

    group: str
    name: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        """Name of the jar file."""
        return f"{self.name}-{self.version}.jar"


Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how many are done, of how many)."""


class Repository(Protocol):
    """Where artefacts come from."""

    def fetch(self, artifact: Artifact, directory: Path) -> Path:
        """Downloads one artefact below `directory` and returns the file; raises on failure."""


class MavenRepository:
    """Maven Central, read by the Maven client of the PyPI package `jgo`."""

    def fetch(self, artifact: Artifact, directory: Path) -> Path:
        """Downloads one artefact without its dependencies."""
        from jgo.maven import MavenContext  # slow to import, and needed once per machine

        context = MavenContext(repo_cache=directory, timeout=_HTTP_TIMEOUT_S)
        component = context.project(artifact.group, artifact.name).at_version(artifact.version)
        return Path(component.artifact().resolve())


def read_lock(path: Path = LOCK_FILE) -> tuple[Artifact, ...]:
    """Reads the pinned artefacts."""
    return tuple(_parse(line) for line in path.read_text().splitlines() if line.strip())


def jar_directory() -> Path:
    """Where the jars of this release lie once they are complete."""
    lock_digest = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:8]
    return cache_directory() / f"kafka-{KAFKA_VERSION}-{lock_digest}"


def jars_present() -> bool:
    """Whether every pinned jar is in the cache."""
    directory = jar_directory()
    return all((directory / artifact.filename).is_file() for artifact in read_lock())


def ensure_jars(progress: Progress | None = None, repository: Repository | None = None) -> Path:
    """Returns the directory of the jars, downloading what is missing.

    Processes that ask at the same time wait for the one that downloads.

    Raises:
        DownloadError: The cache cannot be written, an artefact cannot be reached, or its
            checksum is not the pinned one.
    """
    directory = jar_directory()
    if jars_present():
        return directory
    with _exclusive(_beside(directory, ".lock")):
        if not jars_present():
            _download_all(directory, progress or (lambda *_: None), repository or MavenRepository())
    return directory


def _download_all(directory: Path, progress: Progress, repository: Repository) -> None:
    staging = _beside(directory, ".partial")
    downloads_directory = _beside(directory, ".maven")
    staging.mkdir(parents=True, exist_ok=True)
    artifacts = read_lock()
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        downloads = [
            pool.submit(_download, artifact, staging, downloads_directory, repository)
            for artifact in artifacts
        ]
        try:
            for done, download in enumerate(downloads, start=1):
                download.result()
                progress("downloading Apache Kafka", done, len(artifacts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
    shutil.rmtree(downloads_directory, ignore_errors=True)


def _download(
    artifact: Artifact, staging: Path, downloads_directory: Path, repository: Repository
) -> None:
    target = staging / artifact.filename
    if target.is_file() and _sha256(target) == artifact.sha256:
        return
    failure = ""
    for _ in range(_ATTEMPTS):
        try:
            fetched = repository.fetch(artifact, downloads_directory)
        except Exception as error:  # the client raises what its HTTP library raises
            failure = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        digest = _sha256(fetched)
        if digest == artifact.sha256:
            fetched.replace(target)
            return
        fetched.unlink()
        failure = f"expected sha256 {artifact.sha256}, was {digest}"
    raise DownloadError(
        f"expected to download {artifact.group}:{artifact.name}:{artifact.version}, "
        f"was: {failure}; check the network (HTTPS_PROXY and REQUESTS_CA_BUNDLE are used) "
        f"or copy {jar_directory()} from a machine that has it"
    )


def _beside(directory: Path, suffix: str) -> Path:
    return directory.with_name(directory.name + suffix)


def _parse(line: str) -> Artifact:
    coordinates, digest = line.split()
    group, name, version = coordinates.split(":")
    return Artifact(group, name, version, digest.removeprefix("sha256:"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise DownloadError(
            f"expected a writable cache directory, was {path.parent} ({error.strerror}); "
            "set XDG_CACHE_HOME to one with about 150 MB free"
        ) from error
