"""What docs/clients.md says of the bridge is what the bridge has."""

import re
from pathlib import Path

from schemas.requests import Code
from schemas.selections import MAX_NAMES, MAX_SYMBOLS
from schemas.settings import GrpcSettings

_TEXT = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")


def test_every_setting_of_the_bridge_has_its_default():
    found = dict(re.findall(r"^\| `MYSTOCKS_GRPC__(\w+)` \| `([^`]*)` \|", _TEXT, re.MULTILINE))
    settings = GrpcSettings().model_dump(exclude={"address"})  # of clients
    assert found == {name.upper(): str(value) for name, value in settings.items()}


def test_every_status_is_explained():
    found = set(re.findall(r"^\| `((?!MYSTOCKS_)[A-Z_]+)` \|", _TEXT, re.MULTILINE))
    assert found == {code.name for code in Code}


def test_bounds_are_those_of_the_rules():
    assert f"at most {MAX_SYMBOLS:,} symbols and {MAX_NAMES:,} features" in _TEXT
    assert f"of up to {MAX_SYMBOLS:,} symbols" in _TEXT
