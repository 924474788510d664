"""Machine code on disk holds as long as its sources do, those of imported modules included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "__init__": "",
    "kernel": """
        from processors.step import step
        from schemas.machine_code import kept_njit

        @kept_njit()
        def run(x):
            return step(x)
    """,
    "step": """
        from processors import constants
        from processors.constants import FACTOR
        from schemas.machine_code import kept_njit

        @kept_njit()
        def step(x):
            return x * FACTOR + constants.OFFSET
    """,
    "constants": """
        FACTOR, OFFSET = 10, 1
    """,
}
RUN = """
from processors.kernel import run
print(run(3), sum(run.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path):
    """A project of its own with a compiled function, and what that is made of."""
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    for name in FILES:
        write(tmp_path, name)
    return tmp_path


def write(project: Path, name: str, old: str = "", new: str = "") -> None:
    """Writes a module with one text in the place of another."""
    path = project / "processors" / f"{name}.py"
    path.parent.mkdir(exist_ok=True)
    lines = FILES[name].replace(old, new).splitlines()
    path.write_text("\n".join(line.removeprefix(" " * 8) for line in lines))


def run(project: Path) -> tuple[int, int]:
    """Calls the function in a new process; returns its result, and how often it was on disk."""
    # Python's own cache goes by size and the second of the last change.
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    result, hits = done.stdout.split()
    return int(result), int(hits)


def test_a_change_of_anything_that_a_function_is_made_of_is_seen(project):
    assert run(project) == (31, 0)
    assert run(project) == (31, 1)
    write(project, "step", "x * FACTOR", "x - FACTOR")
    assert run(project) == (-6, 0)
    write(project, "constants", "10, 1", "20, 7")
    assert run(project) == (-10, 0)
    write(project, "step")
    write(project, "constants")
    assert run(project) == (31, 0)
    assert run(project) == (31, 1)


def test_every_function_that_is_kept_on_disk_is_kept_by_its_sources():
    packages = ("schemas", "processors", "streams", "grpc_bridge", "mystocks")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    keeping = {str(f.relative_to(ROOT)) for f in files if "cache=True" in f.read_text()}
    # Files of the second are named by all that is in them.
    assert keeping == {"schemas/machine_code.py", "processors/features/kernel.py"}
