import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_coverage.py"
PACKAGES = ("schemas", "streams", "processors", "mystocks", "grpc_bridge")


def check(tmp_path, covered):
    files = {
        f"{package}/module.py": {
            "summary": {"covered_lines": covered.get(package, 100), "num_statements": 100}
        }
        for package in PACKAGES
    }
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"files": files}))
    return subprocess.run(
        [sys.executable, SCRIPT, report], capture_output=True, text=True, check=False
    )


def test_covered_packages_pass(tmp_path):
    assert check(tmp_path, {}).returncode == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_package_below_its_floor_is_refused_and_named(tmp_path, package):
    result = check(tmp_path, {package: 10})
    assert result.returncode == 1
    assert [line.split()[1] for line in result.stdout.splitlines() if "TOO LOW" in line] == [
        package
    ]
