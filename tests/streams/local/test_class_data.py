from pathlib import Path

import pytest

from streams.local.class_data import ensure_class_data
from streams.local.java import Java


@pytest.fixture
def failing_java(tmp_path) -> Java:
    """A runtime that can neither make an archive nor run a broker; counts its runs."""
    program = tmp_path / "home" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho run >> {tmp_path / 'runs'}\nexit 1\n")
    program.chmod(0o755)
    return Java(path=program, major=17, description="broken")


def test_runtime_without_archives_is_used_without_and_asked_once(failing_java, tmp_path):
    jars = tmp_path / "cache" / "jars"
    jars.mkdir(parents=True)
    steps = []
    assert ensure_class_data(failing_java, jars, lambda *step: steps.append(step)) == ()
    runs = (tmp_path / "runs").read_text()
    assert ensure_class_data(failing_java, jars) == ()
    assert (tmp_path / "runs").read_text() == runs
    assert [done for _, done, _ in steps] == [0, 1]


def test_cache_that_cannot_be_written_costs_only_speed(failing_java):
    assert ensure_class_data(failing_java, Path("/proc/nowhere/jars")) == ()
