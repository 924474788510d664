"""Sessions on disk: as computed, or computed again."""

import subprocess
import sys

import numpy as np
import pytest

from processors.bars import session_cache
from processors.bars.session_cache import cached_sessions

SESSIONS = np.array([[10, 12, 14, 20], [30, 0, 0, 40]], np.int64)


@pytest.fixture
def computed():
    return []


@pytest.fixture
def load(tmp_path, computed):
    def compute():
        computed.append(1)
        return SESSIONS

    return lambda directory=tmp_path: cached_sessions("XSHG", compute, directory)


def only_file(directory):
    (found,) = directory.iterdir()
    return found


def test_sessions_are_computed_once(load, computed, tmp_path):
    for _ in range(3):
        assert np.array_equal(load(), SESSIONS)
    assert len(computed) == 1
    assert only_file(tmp_path).suffix == ".npy"


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"not an array",
        np.zeros(3, np.int64),
        np.zeros((0, 4), np.int64),
        SESSIONS[:, :3],
        SESSIONS.astype(np.float64),
        SESSIONS[::-1],
        np.array([[10, 0, 0, 5]], np.int64),
        np.array([{"a": 1}], object),
    ],
    ids=["empty", "text", "shape", "no rows", "columns", "dtype", "order", "close", "objects"],
)
def test_a_damaged_file_is_replaced(load, computed, tmp_path, damage):
    load()
    path = only_file(tmp_path)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        np.save(path, damage, allow_pickle=True)
    assert np.array_equal(load(), SESSIONS)
    assert np.array_equal(load(), SESSIONS)
    assert len(computed) == 2


def test_another_week_or_library_computes_again_and_leaves_one_file(
    load, computed, tmp_path, monkeypatch
):
    load()
    monkeypatch.setattr(session_cache, "_edition", lambda: "5.0-2030w01")
    load()
    assert len(computed) == 2
    assert only_file(tmp_path).name == "XSHG-5.0-2030w01.npy"


def test_a_directory_that_cannot_be_written_is_done_without(load, computed, tmp_path):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        assert np.array_equal(load(tmp_path / "file" / "below"), SESSIONS)
    assert len(computed) == 2


def test_a_second_start_does_not_import_pandas(tmp_path):
    code = (
        "import sys; from processors.bars.calendars import Calendars; c = Calendars.load();"
        "print('pandas' in sys.modules, len(c.segments), int(c.segments.sum()))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code],
            env={"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.split()
        for _ in range(2)
    )
    assert first[0] == "True"
    assert second[0] == "False"
    assert first[1:] == second[1:]
