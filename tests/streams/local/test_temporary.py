import fcntl
import subprocess
import sys
import tempfile

import pytest

from streams.local.temporary import TemporaryDirectory, remove_abandoned


@pytest.fixture(autouse=True)
def own_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_removed_directory_is_gone():
    directory = TemporaryDirectory()
    (directory.path / "data").write_text("x")
    directory.remove()
    assert not directory.path.exists()


def test_directory_of_a_killed_owner_is_removed_by_the_next(tmp_path):
    script = (
        "import os, signal, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from streams.local.temporary import TemporaryDirectory\n"
        "print(TemporaryDirectory().path, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    abandoned = list(tmp_path.iterdir())
    assert len(abandoned) == 1
    TemporaryDirectory().remove()
    assert not abandoned[0].exists()


def test_directory_with_an_owner_stays():
    directory = TemporaryDirectory()
    remove_abandoned()
    assert directory.path.exists()


def test_directory_stays_while_a_child_holds_the_lock():
    directory = TemporaryDirectory()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[directory.lock])
    directory._lock.close()
    remove_abandoned()
    assert directory.path.exists()
    child.kill()
    child.wait()
    remove_abandoned()
    assert not directory.path.exists()


def test_lock_is_exclusive():
    directory = TemporaryDirectory()
    with (directory.path / "owner.lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
