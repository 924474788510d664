"""The page about faults names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (_ROOT / "docs/faults.md").read_text())


@pytest.mark.parametrize(("file", "test"), sorted(set(_NAMED)))
def test_what_the_page_promises_is_tested(file, test):
    tree = ast.parse((_ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_its_test():
    text = (_ROOT / "docs/faults.md").read_text()
    table = text.split("## Trouble")[1].split("## Memory")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    assert all("::test_" in row for row in rows)
