"""A Node client with code of its own, generated from the .proto files when the test runs."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import google.rpc
import pytest

pytestmark = pytest.mark.kafka

_ROOT = Path(__file__).parents[2]
_SOURCE = Path(__file__).parent / "node"
_PROTOS = (
    "mystocks/v1/realtime.proto",
    "mystocks/v1/market.proto",
    "mystocks/v1/backtest.proto",
    "mystocks/v1/job_types.proto",
    "google/rpc/status.proto",
    "google/rpc/error_details.proto",
    "health.proto",
)
# npm's words for a registry that cannot be reached, unlike one that answers with bad packages.
_OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The client's directory, with its packages and its generated code."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    wanted = json.loads((_SOURCE / "package.json").read_text())["engines"]["node"]
    version = subprocess.check_output([node, "--version"], text=True)
    if int(version[1:].split(".")[0]) < int(wanted.removeprefix(">=")):
        pytest.skip(f"needs node {wanted}, was {version.strip()}")
    directory = tmp_path_factory.mktemp("node")
    for file in _SOURCE.iterdir():
        if file.is_file():
            shutil.copy(file, directory)
    (directory / "node_modules").symlink_to(_packages(npm))
    _generate(directory)
    return directory


def _packages(npm: str) -> Path:
    """Installs what the lock says, once for every lock."""
    lock = (_SOURCE / "package-lock.json").read_bytes()
    installed = _ROOT / "build" / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not installed.exists():
        partial = installed.with_name(f"{installed.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(_SOURCE / name, partial)
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts"],
            cwd=partial,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(partial)
            if any(word in done.stderr for word in _OFFLINE):
                pytest.skip(f"needs the npm registry: {done.stderr[-300:]}")
            pytest.fail(done.stderr)
        try:
            partial.rename(installed)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return installed / "node_modules"


def _generate(directory: Path) -> None:
    (directory / "gen").mkdir()
    site_packages = Path(next(iter(google.rpc.__path__))).parents[1]
    includes = (_ROOT / "protos", site_packages, directory)
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            f"--plugin=protoc-gen-es={directory / 'node_modules' / '.bin' / 'protoc-gen-es'}",
            f"--es_out={directory / 'gen'}",
            *("--es_opt=target=js", "--es_opt=import_extension=js"),
            *(f"-I{include}" for include in includes),
            *_PROTOS,
        ],
        check=True,
    )


def test_node_client_with_its_own_generated_code_does_all_of_it(project, address):
    done = subprocess.run(
        ["node", "--test", "--test-reporter=tap", "bridge.test.js"],
        cwd=project,
        env=os.environ | {"BRIDGE": address},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    written = len(re.findall(r"^test\(", (project / "bridge.test.js").read_text(), re.MULTILINE))
    counts = dict(re.findall(r"^# (pass|fail|skipped|todo) (\d+)", done.stdout, re.MULTILINE))
    assert counts == {"pass": str(written), "fail": "0", "skipped": "0", "todo": "0"}


def test_the_lock_names_no_registry():
    lock = json.loads((_SOURCE / "package-lock.json").read_text())
    packages = [entry for path, entry in lock["packages"].items() if path]
    assert all("resolved" not in entry for entry in packages)
    assert all(entry["integrity"].startswith("sha512-") for entry in packages)
