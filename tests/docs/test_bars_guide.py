"""docs/bars.md names settings, markets and intervals that exist, with their defaults."""

import re
from pathlib import Path

from processors.bars.calendars import MARKETS
from processors.bars.rules import BarRules
from processors.bars.state import BarState
from schemas.bars_settings import BarsSettings
from schemas.symbols import MARKET_OF_SUFFIX

GUIDE = (Path(__file__).parents[2] / "docs" / "bars.md").read_text(encoding="utf-8")


def as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_has_the_defaults():
    rows = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`|(-)) \|", GUIDE.split("## Settings")[1], re.M)
    assert len(rows) > 8
    for name, default, none in rows:
        assert as_text(getattr(BarsSettings(), name)) == (default or none), name


def test_variables_are_settings():
    for name in re.findall(r"MYSTOCKS_BARS__([A-Z_]+[A-Z])", GUIDE):
        assert name.lower() in BarsSettings.model_fields


def test_markets_have_the_suffixes_that_it_says():
    rows = re.findall(r"^\| `(\w+)` \| `([.A-Z …]+)` \|", GUIDE, re.M)
    assert {market for market, _ in rows} == {*MARKETS, "crypto"}
    for market, suffixes in rows:
        for suffix in re.findall(r"\.([A-Z]+)", suffixes):
            assert MARKET_OF_SUFFIX[suffix] == market


def test_memory_is_what_it_says():
    rules = BarRules.of(BarsSettings().intervals)
    order = rules.order().state_width
    state = BarState(len(rules.intervals), rules.bars_per_interval, order, capacity=1)
    held = sum(column.nbytes for column in (*state.bars, state.order))
    said = float(re.search(r"(\d+) kB with the defaults", GUIDE)[1])
    assert abs(held / 1000 - said) < 1
    assert "five more" in GUIDE
    assert rules.bars_per_interval == 1 + 5
