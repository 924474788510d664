import hashlib
import threading
import time

import pytest

from streams.local import artifacts
from streams.local.artifacts import Artifact, ensure_jars, jar_directory, jars_present, read_lock
from streams.local.errors import DownloadError


class FakeRepository:
    """Serves `contents` by artefact name, after as many failures as were asked for."""

    def __init__(self, contents, failures=0):
        self.contents = contents
        self.failures = failures
        self.fetched = []
        self._lock = threading.Lock()

    def fetch(self, artifact, directory):
        time.sleep(0.01)
        with self._lock:
            if self.failures > 0:
                self.failures -= 1
                raise ConnectionError("connection reset")
            self.fetched.append(artifact.name)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / artifact.filename
        path.write_bytes(self.contents[artifact.name])
        return path


CONTENTS = {name: name.encode() for name in ("broker", "clients", "scala")}


@pytest.fixture
def pinned(monkeypatch, tmp_path):
    """A lock file of three small artefacts and an empty cache."""
    lock = tmp_path / "jars.lock"
    lock.write_text(
        "".join(
            f"org.example:{name}:1.0 sha256:{hashlib.sha256(content).hexdigest()}\n"
            for name, content in CONTENTS.items()
        )
    )
    monkeypatch.setattr(artifacts, "LOCK_FILE", lock)
    monkeypatch.setattr(artifacts, "read_lock", lambda: read_lock(lock))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_committed_lock_pins_every_jar_once_and_names_no_host():
    pinned = read_lock()
    assert len({(artifact.group, artifact.name) for artifact in pinned}) == len(pinned) == 46
    assert all(len(artifact.sha256) == 64 for artifact in pinned)
    assert "://" not in artifacts.LOCK_FILE.read_text()


def test_kafka_artefacts_of_the_lock_are_of_one_version():
    versions = {a.version for a in read_lock() if a.group == "org.apache.kafka"}
    assert versions == {artifacts.KAFKA_VERSION}


def test_jars_are_downloaded_once(pinned):
    repository = FakeRepository(CONTENTS)
    steps = []
    directory = ensure_jars(lambda *step: steps.append(step), repository)
    assert {path.name for path in directory.iterdir()} == {f"{n}-1.0.jar" for n in CONTENTS}
    assert steps[-1] == ("downloading Apache Kafka", 3, 3)
    ensure_jars(repository=repository)
    assert sorted(repository.fetched) == sorted(CONTENTS)


def test_concurrent_callers_download_once(pinned):
    repository = FakeRepository(CONTENTS)
    threads = [threading.Thread(target=ensure_jars, args=(None, repository)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(repository.fetched) == sorted(CONTENTS)


def test_short_failures_are_retried(pinned):
    ensure_jars(repository=FakeRepository(CONTENTS, failures=2))
    assert jars_present()


def test_wrong_content_is_refused(pinned):
    with pytest.raises(DownloadError, match=r"org\.example:scala:1\.0.*expected sha256"):
        ensure_jars(repository=FakeRepository(CONTENTS | {"scala": b"malicious"}))
    assert not jar_directory().exists()


def test_unreachable_repository_is_one_line_that_says_what_to_do(pinned):
    with pytest.raises(DownloadError, match=r"connection reset.*HTTPS_PROXY") as caught:
        ensure_jars(repository=FakeRepository(CONTENTS, failures=10**6))
    assert "\n" not in str(caught.value)


def test_missing_jar_is_fetched_again(pinned):
    directory = ensure_jars(repository=FakeRepository(CONTENTS))
    (directory / "scala-1.0.jar").unlink()
    ensure_jars(repository=FakeRepository(CONTENTS))
    assert jars_present()


def test_cache_that_is_a_file_is_refused(pinned, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"writable cache directory.*XDG_CACHE_HOME"):
        ensure_jars(repository=FakeRepository(CONTENTS))


def test_filename_is_the_one_of_maven():
    assert Artifact("g", "kafka_2.13", "4.3.1", "").filename == "kafka_2.13-4.3.1.jar"
