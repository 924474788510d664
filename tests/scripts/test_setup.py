import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(monkeypatch, tmp_path):
    """`scripts/setup.py` on a machine where nothing about pip is configured."""
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    passed_on = {name for names in module.PASSED_ON.values() for name in names}
    for name in [name for name in os.environ if name.startswith("PIP_") or name in passed_on]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "pip_files", lambda: [tmp_path / "pip.conf"])
    return module


def test_settings_of_pip_reach_uv_and_the_maven_client(setup, tmp_path):
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\ncert = /ca.pem\n"
        "[install]\nproxy = http://proxy.example:3128\n"
    )
    assert setup.passed_on(setup.pip_settings()) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "SSL_CERT_FILE": "/ca.pem",
        "REQUESTS_CA_BUNDLE": "/ca.pem",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
    }


def test_environment_wins_over_the_file_and_what_is_set_for_uv_stays(setup, tmp_path, monkeypatch):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file.example/simple\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.example/simple")
    assert setup.passed_on(setup.pip_settings()) == {
        "UV_DEFAULT_INDEX": "https://environment.example/simple"
    }
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example/simple")
    assert setup.passed_on(setup.pip_settings()) == {}


def test_wheel_directory_that_is_missing_is_left_out(setup, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", f"/nowhere {tmp_path / 'wheels'}")
    assert setup.passed_on(setup.pip_settings()) == {"UV_FIND_LINKS": str(tmp_path / "wheels")}


def test_broken_settings_file_is_ignored(setup, tmp_path):
    (tmp_path / "pip.conf").write_text("no section\n")
    assert setup.pip_settings() == {}


def test_stamp_follows_the_lock(setup, tmp_path, monkeypatch):
    lock = tmp_path / "dev.lock"
    lock.write_text("a==1\n")
    monkeypatch.setattr(setup, "INPUTS", (lock,))
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    assert not setup.is_current()
    setup.STAMP.write_text(setup.fingerprint())
    assert setup.is_current()
    lock.write_text("a==2\n")
    assert not setup.is_current()


def test_failed_step_is_one_line(setup):
    with pytest.raises(setup.SetupError, match="exit status 3"):
        setup.run([sys.executable, "-c", "import sys; sys.exit(3)"], {})


def test_without_a_python_one_line_says_what_to_do(tmp_path):
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "setup.sh"
    script.write_text((ROOT / "scripts" / "setup.sh").read_text())
    result = subprocess.run(
        ["sh", script],
        env={"PATH": "/usr/bin:/bin", "PYTHON": "/nowhere/python3.12"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 69
    assert result.stderr.startswith("error: expected Python 3.11 to 3.14")
    assert len(result.stderr.splitlines()) == 1
