"""The page about faults names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, UnavailableError
from streams.kafka.errors import FENCED_EXIT_CODE, RESTART_EXIT_CODE, StateNotRestorableError

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/faults.md").read_text()
_MEMORY_TEST = _ROOT / "tests/roles/test_memory.py"
_NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _PAGE)


@pytest.mark.parametrize(("file", "test"), sorted(set(_NAMED)))
def test_what_the_page_promises_is_tested(file, test):
    tree = ast.parse((_ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_its_test():
    table = _PAGE.split("## Trouble")[1].split("## Memory")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    assert all("::test_" in row for row in rows)


def test_the_memory_that_is_promised_is_the_memory_that_is_tested():
    tested = re.search(r"^MOST_BYTES = (\d+)_000_000$", _MEMORY_TEST.read_text(), re.M)
    assert f"fails above {tested[1]} MB" in _PAGE


def test_every_exit_code_of_a_role_is_explained():
    codes = {0, FENCED_EXIT_CODE, RESTART_EXIT_CODE, UnavailableError.exit_code}
    codes |= {StateNotRestorableError.exit_code, ConfigurationError.exit_code}
    explained = _PAGE.split("## Exit codes")[1]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", explained, re.M)} == codes
