"""How much a request may ask for."""

import pytest

from schemas.selections import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    MAX_SYMBOLS,
    names_problem,
    symbols_problem,
)


def test_what_is_acceptable_has_no_problem():
    assert symbols_problem([], "symbols") is None
    assert symbols_problem([f"S{i}" for i in range(MAX_SYMBOLS)], "symbols") is None
    assert names_problem(["n" * MAX_NAME_LENGTH] * MAX_NAMES, "names") is None


@pytest.mark.parametrize(
    ("problem", "field", "text"),
    [
        (symbols_problem(["A"] * (MAX_SYMBOLS + 1), "x.symbols"), "x.symbols", "at most 20000"),
        (symbols_problem(["A", "a b"], "x.symbols"), "x.symbols[1]", "character outside"),
        (names_problem(["a"] * (MAX_NAMES + 1), "names"), "names", "at most 1000 names, was 1001"),
        (names_problem(["a", ""], "names"), "names[1]", "name of a feature"),
        (names_problem(["n" * (MAX_NAME_LENGTH + 1)], "names"), "names[0]", "was 129"),
    ],
)
def test_a_problem_names_its_field(problem, field, text):
    assert problem.field == field
    assert text in problem.text
    assert len(problem.text) < 400
