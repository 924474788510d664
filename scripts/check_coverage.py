"""Refuses a test run whose line coverage of a package is below its floor."""

import json
import sys
from pathlib import Path

FLOORS = {
    "schemas": 90,
    "streams": 88,
    "processors": 85,
    "mystocks": 88,
    "grpc_bridge": 85,
}
"""Percent of lines by top-level package."""


def main(report: Path) -> int:
    """Prints one line a package; returns 1 if any is below its floor."""
    covered = dict.fromkeys(FLOORS, 0)
    lines = dict.fromkeys(FLOORS, 0)
    for file, result in json.loads(report.read_text())["files"].items():
        package = Path(file).parts[0]
        if package in FLOORS:
            covered[package] += result["summary"]["covered_lines"]
            lines[package] += result["summary"]["num_statements"]
    failed = False
    for package, floor in FLOORS.items():
        percent = 100 * covered[package] / lines[package] if lines[package] else 0.0
        verdict = "ok" if percent >= floor else "TOO LOW"
        failed |= percent < floor
        print(f"coverage {package:<12} {percent:5.1f} % (floor {floor} %) {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
